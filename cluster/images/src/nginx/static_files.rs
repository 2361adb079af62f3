//! Files.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use meshlab_program::{FileSystem, FileType};

use super::config::{Location, Settings, header_value};
use super::location::matched_prefix;
use super::variables::Request;
use crate::http::{Body, empty, full};

/// Where a path leads.
pub(super) enum Found {
    File(Response<Body>),
    /// A directory's index: the path to start again with.
    Index(String),
    /// A directory without its slash.
    Redirect(String),
    Forbidden(String),
    Missing(String),
}

/// The file's path for a request's path, by `root` or `alias`.
pub(super) fn file_path(settings: &Settings, location: Option<&Location>, request: &Request, path: &str) -> String {
    match &settings.alias {
        Some(alias) => {
            let rest = path.strip_prefix(location.map_or("", matched_prefix)).unwrap_or(path);
            format!("{}{rest}", request.expand(alias))
        }
        None => format!("{}{path}", request.expand(&settings.root)),
    }
}

/// Answers with a file.
pub(super) fn serve(fs: &FileSystem, settings: &Settings, location: Option<&Location>, request: &Request) -> Found {
    let path = file_path(settings, location, request, &request.path);
    let metadata = match fs.metadata(&path) {
        Ok(metadata) => metadata,
        Err(err) => return Found::Missing(format!("open() \"{path}\" failed (2: {err})")),
    };
    if metadata.file_type == FileType::Directory {
        if !request.path.ends_with('/') {
            return Found::Redirect(format!("{}/", request.path));
        }
        for index in &settings.index {
            let index = request.expand(index);
            if fs.metadata(&format!("{path}{index}")).is_ok_and(|found| found.file_type == FileType::File) {
                return Found::Index(format!("{}{index}", request.path));
            }
        }
        return match settings.autoindex {
            true => Found::File(listing(fs, &path, &request.path)),
            false => Found::Forbidden(format!("directory index of \"{path}\" is forbidden")),
        };
    }
    let content = match fs.read(&path) {
        Ok(content) => content,
        Err(err) => return Found::Missing(format!("open() \"{path}\" failed ({err})")),
    };
    let modified = Timestamp::try_from(metadata.modified).unwrap_or(Timestamp::UNIX_EPOCH);
    let etag = format!("\"{:x}-{:x}\"", modified.as_second(), content.len());
    if request.header("if-none-match") == etag {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Found::File(response);
    }
    let mut response = Response::new(full(content));
    let headers = response.headers_mut();
    let extension = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, extension)| extension);
    let content_type = settings.types.get(extension).unwrap_or(&settings.default_type);
    headers.insert(header::CONTENT_TYPE, header_value(content_type).unwrap_or(HeaderValue::from_static("text/plain")));
    for (name, value) in
        [(header::LAST_MODIFIED, modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()), (header::ETAG, etag)]
    {
        if let Some(value) = header_value(&value) {
            headers.insert(name, value);
        }
    }
    Found::File(response)
}

fn listing(fs: &FileSystem, directory: &str, path: &str) -> Response<Body> {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let entries = fs.list(directory).unwrap_or_default();
    let line = |(name, _): &(String, _)| {
        let slash = if fs.metadata(&format!("{directory}/{name}")).is_ok_and(|found| found.file_type == FileType::Directory) {
            "/"
        } else {
            ""
        };
        let name = format!("{}{slash}", escape(name));
        format!("<a href=\"{name}\">{name}</a>\n")
    };
    let title = format!("Index of {}", escape(path));
    let lines: String = entries.iter().map(line).collect();
    let page = format!(
        "<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1><hr><pre><a href=\"../\">../</a>\n{lines}</pre><hr></body>\n</html>\n"
    );
    let mut response = Response::new(full(page));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}
