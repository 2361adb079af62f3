//! Redirections: `<`, `>`, `>>`, `2>&1`, here-documents.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use brush_parser::ast::{IoFileRedirectKind, IoFileRedirectTarget, IoRedirect};
use meshlab_program::{FileSystem, FileType, Shared};
use tokio::io::AsyncWrite;

use super::state::{Descriptor, Flow, Shell};

/// A file that is written to at its end.
struct FileWriter {
    fs: FileSystem,
    path: String,
}

impl AsyncWrite for FileWriter {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.fs.append(&self.path, bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn input(content: impl AsRef<[u8]> + Send + Unpin + 'static) -> Descriptor {
    Descriptor::Input(Shared::new(Box::new(io::Cursor::new(content))))
}

impl Shell {
    /// Applies redirections to the shell's own descriptors; the caller puts the old ones back. The inner error is for the user.
    pub(super) async fn redirect(&mut self, redirects: &[IoRedirect]) -> Result<Result<(), String>, Flow> {
        for redirect in redirects {
            if let Err(message) = self.redirect_one(redirect).await? {
                return Ok(Err(message));
            }
        }
        Ok(Ok(()))
    }

    async fn redirect_one(&mut self, redirect: &IoRedirect) -> Result<Result<(), String>, Flow> {
        let (number, descriptor) = match redirect {
            IoRedirect::File(number, kind, target) => {
                let default = match kind {
                    IoFileRedirectKind::Read | IoFileRedirectKind::DuplicateInput | IoFileRedirectKind::ReadAndWrite => 0,
                    _ => 1,
                };
                let number = number.unwrap_or(default);
                let opened = match target {
                    IoFileRedirectTarget::Filename(word) => match self.expand_to_text(&word.value).await? {
                        Ok(path) => self.open(&path, kind),
                        Err(message) => Err(message),
                    },
                    IoFileRedirectTarget::Fd(from) => self.duplicate(&from.to_string()),
                    IoFileRedirectTarget::Duplicate(word) => match self.expand_to_text(&word.value).await? {
                        Ok(from) => self.duplicate(&from),
                        Err(message) => Err(message),
                    },
                    IoFileRedirectTarget::ProcessSubstitution(..) => Err("<(…) is not supported by this shell".to_owned()),
                };
                (number, opened)
            }
            IoRedirect::HereDocument(number, document) => {
                let text = match document.requires_expansion {
                    true => self.expand_unquoted(&document.doc.value).await?,
                    false => Ok(document.doc.value.clone()),
                };
                (number.unwrap_or(0), text.map(|text| Some(input(text))))
            }
            IoRedirect::HereString(number, word) => {
                let text = self.expand_to_text(&word.value).await?;
                (number.unwrap_or(0), text.map(|text| Some(input(format!("{text}\n")))))
            }
            IoRedirect::OutputAndError(word, append) => {
                let kind = if *append { IoFileRedirectKind::Append } else { IoFileRedirectKind::Write };
                let opened = match self.expand_to_text(&word.value).await? {
                    Ok(path) => self.open(&path, &kind),
                    Err(message) => Err(message),
                };
                if let Ok(Some(descriptor)) = &opened {
                    self.descriptors.insert(2, descriptor.clone());
                }
                (1, opened)
            }
        };
        Ok(descriptor.map(|descriptor| match descriptor {
            Some(descriptor) => drop(self.descriptors.insert(number, descriptor)),
            None => drop(self.descriptors.remove(&number)),
        }))
    }

    /// `N` of `>&N`; `-` closes.
    fn duplicate(&self, from: &str) -> Result<Option<Descriptor>, String> {
        if from == "-" {
            return Ok(None);
        }
        let number: i32 = from.parse().map_err(|_| format!("{from}: bad file descriptor"))?;
        self.descriptors.get(&number).cloned().map(Some).ok_or_else(|| format!("{from}: bad file descriptor"))
    }

    fn open(&self, path: &str, kind: &IoFileRedirectKind) -> Result<Option<Descriptor>, String> {
        let same_as = |number: i32| Ok(self.descriptors.get(&number).cloned());
        match path {
            "/dev/stdin" | "/dev/fd/0" => return same_as(0),
            "/dev/stdout" | "/dev/fd/1" => return same_as(1),
            "/dev/stderr" | "/dev/fd/2" => return same_as(2),
            _ => {}
        }
        let (fs, absolute) = (self.fs(), self.path(path));
        let cannot = |verb: &str, err: &io::Error| format!("can't {verb} {path}: {err}");
        match kind {
            IoFileRedirectKind::Read | IoFileRedirectKind::DuplicateInput => {
                let content = fs.read(&absolute).map_err(|err| cannot("open", &err))?;
                return Ok(Some(input(content)));
            }
            IoFileRedirectKind::Append => fs.append(&absolute, b"").map_err(|err| cannot("create", &err))?,
            IoFileRedirectKind::ReadAndWrite => return Err(format!("<>{path} is not supported by this shell")),
            IoFileRedirectKind::Write | IoFileRedirectKind::Clobber | IoFileRedirectKind::DuplicateOutput => {
                fs.write(&absolute, Vec::new()).map_err(|err| cannot("create", &err))?;
            }
        }
        if fs.metadata(&absolute).is_ok_and(|metadata| metadata.file_type == FileType::Null) {
            return Ok(Some(Descriptor::Output(Shared::new(Box::new(tokio::io::sink())))));
        }
        Ok(Some(Descriptor::Output(Shared::new(Box::new(FileWriter { fs: fs.clone(), path: absolute })))))
    }
}
