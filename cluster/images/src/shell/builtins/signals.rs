//! `trap`, `wait` and `kill`.

use meshlab_program::Signal;

use super::super::state::{Shell, Status, Trap};
use super::quote;

impl Shell {
    pub(super) async fn trap(&mut self, arguments: &[String]) -> Status {
        let Some((action, names)) = arguments.split_first() else {
            let lines: String =
                self.traps.iter().map(|(trap, action)| format!("trap -- {} {}\n", quote(action), trap.name())).collect();
            return self.say(lines.as_bytes()).await;
        };
        for name in names {
            let Some(trap) = Trap::named(name) else {
                return self.fail("trap", &format!("{name}: only EXIT, INT and TERM can be trapped by this shell")).await;
            };
            match action.as_str() {
                "-" => drop(self.traps.remove(&trap)),
                action => drop(self.traps.insert(trap, action.to_owned())),
            }
        }
        Ok(0)
    }

    pub(super) async fn wait(&mut self, arguments: &[String]) -> Status {
        let wanted: Vec<u32> = arguments.iter().filter_map(|pid| pid.parse().ok()).collect();
        let jobs = std::mem::take(&mut self.jobs.0);
        let (mut waited, others) = jobs.into_iter().partition::<Vec<_>, _>(|job| wanted.is_empty() || wanted.contains(&job.pid));
        self.jobs.0 = others;
        let mut code = if wanted.is_empty() || !waited.is_empty() { 0 } else { 127 };
        for job in &mut waited {
            code = self.wait_for(job).await?;
        }
        Ok(if wanted.is_empty() { 0 } else { code })
    }

    pub(super) async fn kill(&mut self, arguments: &[String]) -> Status {
        let (mut name, mut code, mut words) = ("TERM".to_owned(), 0, arguments.iter());
        while let Some(word) = words.next() {
            if word == "-s" {
                name = words.next().cloned().unwrap_or_default();
                continue;
            }
            if let Some(signal) = word.strip_prefix('-') {
                name = signal.to_owned();
                continue;
            }
            let pid = match word.strip_prefix('%') {
                Some(job) => job.parse().ok().and_then(|job: usize| self.jobs.0.get(job.checked_sub(1)?)).map(|job| job.pid),
                None => word.parse().ok(),
            };
            let Some(pid) = pid else { return self.fail("kill", &format!("{word}: no such process")).await };
            let processes = &self.container.processes;
            let sent = match name.trim_start_matches("SIG") {
                "0" => processes.list().iter().any(|process| process.pid == pid),
                "9" | "KILL" => processes.kill(pid),
                "2" | "INT" => processes.signal(pid, Signal::Interrupt),
                "15" | "TERM" | "1" | "HUP" | "3" | "QUIT" => processes.signal(pid, Signal::Terminate),
                other => {
                    let message = format!("{other}: only signals 0, INT, TERM and KILL are supported by this shell");
                    return self.fail("kill", &message).await;
                }
            };
            if !sent {
                code = 1;
                self.fail("kill", &format!("can't kill pid {pid}: No such process")).await?;
            }
        }
        Ok(code)
    }
}

impl Trap {
    fn named(name: &str) -> Option<Self> {
        match name.trim_start_matches("SIG") {
            "EXIT" | "0" => Some(Self::Exit),
            "INT" | "2" => Some(Self::Interrupt),
            "TERM" | "15" => Some(Self::Terminate),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Exit => "EXIT",
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
        }
    }
}
