//! A headless Chromium, steered by chromedriver with the W3C's WebDriver protocol: <https://www.w3.org/TR/webdriver2/>.
//!
//! The protocol is plain JSON over HTTP, and what is needed of it fits on a page; a crate would add more than it takes away.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a page may take to become what is expected of it.
const PATIENCE: Duration = Duration::from_secs(40);
/// Tallest picture that is taken.
const MAX_HEIGHT: u64 = 2200;
const REMEDY: &str = "The browser tests need Chromium and its driver: run .ci/install-tools (Debian: apt-get install chromium \
    chromium-driver fonts-noto-cjk), or name other ones in CHROMEDRIVER and CHROME";

/// A browser with one window.
pub struct Browser {
    client: reqwest::Client,
    /// URL of the session.
    session: String,
    _driver: Child,
    _profile: TempDir,
}

/// What a page is looked at with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// In CSS pixels.
    pub width: u64,
    /// In CSS pixels.
    pub height: u64,
    /// Whether the reader prefers dark pages.
    pub dark: bool,
    /// Whether the reader wants nothing to move.
    pub still: bool,
}

impl Screen {
    /// A laptop.
    pub const WIDE: Self = Self { width: 1280, height: 900, dark: false, still: false };
    /// A phone.
    pub const NARROW: Self = Self { width: 390, height: 844, dark: false, still: false };

    /// The same for who prefers dark pages.
    pub const fn dark(self) -> Self {
        Self { dark: true, ..self }
    }

    /// The same for who wants nothing to move.
    pub const fn still(self) -> Self {
        Self { still: true, ..self }
    }
}

impl Browser {
    /// Starts chromedriver, and Chromium with a profile of its own.
    ///
    /// # Errors
    /// One of them is missing or does not start; the message says what to do.
    pub async fn start() -> Result<Self> {
        let driver = program("CHROMEDRIVER", &["chromedriver"])?;
        let chromium = program("CHROME", &["chromium", "chromium-browser", "google-chrome"])?;
        let mut driver = Command::new(driver)
            .args(["--port=0", "--log-level=SEVERE"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(REMEDY)?;
        let output = driver.stdout.take().context("chromedriver has no output")?;
        let mut lines = BufReader::new(output).lines();
        let port: u16 = loop {
            let line = lines.next_line().await?.context("chromedriver ended before it said on which port it listens")?;
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse()?;
            }
        };
        let profile = tempfile::tempdir()?;
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": PATIENCE.as_millis() as u64, "pageLoad": PATIENCE.as_millis() as u64},
        }}});
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut browser =
            Self { client, session: format!("http://127.0.0.1:{port}/session"), _driver: driver, _profile: profile };
        let session = browser.post("", capabilities).await?;
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().context("no session")?);
        Ok(browser)
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("/url", json!({"url": url})).await.map(drop)
    }

    /// The value of a JavaScript expression.
    ///
    /// # Errors
    /// It throws.
    pub async fn eval(&self, expression: &str) -> Result<Value> {
        self.post("/execute/sync", json!({"script": format!("return ({expression})"), "args": []})).await
    }

    /// Waits until a JavaScript expression is truthy: it is evaluated now and whenever the page changes. Returns its value.
    ///
    /// # Errors
    /// It was not for a long time; the message has the page's text.
    pub async fn wait(&self, expression: &str) -> Result<Value> {
        let script = format!(
            "const done = arguments[0];
            const observer = new MutationObserver(look);
            function look() {{ const value = ({expression}); if (value) {{ observer.disconnect(); done(value); }} }}
            observer.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
            look();"
        );
        match self.post("/execute/async", json!({"script": script, "args": []})).await {
            Ok(value) => Ok(value),
            Err(error) => {
                let page = self.eval("location + '\\n' + document.body.innerText.slice(0, 3000)").await.unwrap_or_default();
                Err(anyhow!("{expression} did not come true: {error}\n{}", page.as_str().unwrap_or_default()))
            }
        }
    }

    /// Clicks on the first element that a CSS selector finds.
    ///
    /// # Errors
    /// There is none, or it cannot be clicked.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let element = self.post("/element", json!({"using": "css selector", "value": selector})).await?;
        let id = element.as_object().and_then(|element| element.values().next()).and_then(Value::as_str);
        self.post(&format!("/element/{}/click", id.context("no element")?), json!({})).await.map(drop)
    }

    /// Presses a key.
    ///
    /// # Errors
    /// The browser is gone.
    pub async fn press(&self, key: char) -> Result<()> {
        let actions = [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})).await.map(drop)
    }

    /// Changes what pages are looked at with.
    ///
    /// # Errors
    /// The browser is gone.
    pub async fn look_with(&self, screen: Screen) -> Result<()> {
        let mobile = screen.width < 600;
        let metrics = json!({"width": screen.width, "height": screen.height, "deviceScaleFactor": 1, "mobile": mobile});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
        let features = json!([
            {"name": "prefers-color-scheme", "value": if screen.dark { "dark" } else { "light" }},
            {"name": "prefers-reduced-motion", "value": if screen.still { "reduce" } else { "no-preference" }},
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await.map(drop)
    }

    /// Writes a picture of the whole page to a PNG file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn screenshot(&self, path: &Path) -> Result<()> {
        let size = self.eval("[innerWidth, document.documentElement.scrollHeight]").await?;
        let size = [&size[0], &size[1]].map(|length| length.as_u64().unwrap_or(1));
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1].clamp(1, MAX_HEIGHT), "scale": 1});
        let picture = self.devtools("Page.captureScreenshot", json!({"captureBeyondViewport": true, "clip": clip})).await?;
        let picture = base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().context("no picture")?)?;
        std::fs::write(path, picture).with_context(|| path.display().to_string())
    }

    /// What pages have complained about since the last call: errors of scripts, breaches of the content security policy.
    ///
    /// # Errors
    /// The browser is gone.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.post("/se/log", json!({"type": "browser"})).await?;
        let severe = entries.as_array().into_iter().flatten().filter(|entry| entry["level"] == "SEVERE");
        Ok(severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Ends the browser.
    ///
    /// # Errors
    /// It is gone already.
    pub async fn quit(self) -> Result<()> {
        self.client.delete(&self.session).send().await?.error_for_status()?;
        Ok(())
    }

    /// A command of the Chrome DevTools protocol.
    async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let response = self.client.post(format!("{}{path}", self.session)).json(&body).send().await?;
        let mut answer: Value = response.json().await?;
        let value = answer["value"].take();
        match value["error"].as_str() {
            Some(error) if value["message"].is_string() => {
                let message = value["message"].as_str().unwrap_or_default();
                bail!("{error}: {}", message.lines().next().unwrap_or_default())
            }
            _ => Ok(value),
        }
    }
}

/// The program that `variable` names, or the first of `names` in the path.
fn program(variable: &str, names: &[&str]) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        ensure!(path.exists(), "{variable}={} is not there. {REMEDY}", path.display());
        return Ok(path);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&folders).collect();
    let found = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.exists());
    found.with_context(|| format!("There is no {} in PATH. {REMEDY}", names.join(", ")))
}
