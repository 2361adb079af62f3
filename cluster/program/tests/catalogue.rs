//! Which names find which image.

use std::sync::Arc;

use meshlab_program::{Catalogue, Image};

fn catalogue(names: &[&str]) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for name in names {
        catalogue.register(name, Image::builder().env("NAME", name).build());
    }
    catalogue
}

fn found(catalogue: &Catalogue, name: &str) -> Option<String> {
    catalogue.find(name).ok().map(|image| image.env["NAME"].clone())
}

#[test]
fn an_image_is_found_by_every_name_it_goes_by() {
    let catalogue = catalogue(&["nginx", "curlimages/curl", "ghcr.io/meshlab/webapp"]);
    let digest = format!("sha256:{}", "a".repeat(64));
    for name in [
        "nginx",
        "nginx:1.25",
        "nginx:1.25-alpine",
        "library/nginx",
        "docker.io/nginx",
        "docker.io/library/nginx:1.25",
        "registry:5000/nginx",
        "localhost/nginx:dev",
        "localhost:5000/nginx:dev",
        "registry.example.com:5000/library/nginx:1",
        &format!("nginx@{digest}"),
        &format!("docker.io/library/nginx:1.25@{digest}"),
    ] {
        assert_eq!(found(&catalogue, name).as_deref(), Some("nginx"), "{name}");
    }
    assert_eq!(found(&catalogue, "docker.io/curlimages/curl:8.10.1").as_deref(), Some("curlimages/curl"));
    assert_eq!(found(&catalogue, "ghcr.io/meshlab/webapp:latest").as_deref(), Some("ghcr.io/meshlab/webapp"));
}

#[test]
fn another_image_is_not_taken_for_it() {
    let catalogue = catalogue(&["nginx", "curlimages/curl", "ghcr.io/meshlab/webapp"]);
    for name in [
        "",
        "nginx2",
        "my-nginx",
        "someone/nginx",
        "nginx/nginx",
        "nginx:",
        "nginx:a/b",
        "nginx:1:2",
        "nginx@sha256:xyz",
        "nginx:1@sha256:",
        "nginx ",
        "NGINX",
        "curl",
        "library/curlimages/curl/x",
        "example.com/other/webapp",
        "webapp",
        "meshlab/webapp",
    ] {
        assert_eq!(found(&catalogue, name), None, "{name}");
    }
}

#[test]
fn the_one_registered_last_wins_and_a_missing_one_names_the_others() {
    let mut catalogue = catalogue(&["a", "b"]);
    let mine: Arc<Image> = Image::builder().env("NAME", "mine").build();
    catalogue.register("a", mine);
    assert_eq!(found(&catalogue, "a").as_deref(), Some("mine"));
    let error = catalogue.find("c").err().map(|err| err.to_string());
    assert_eq!(error.as_deref(), Some("no image \"c\"; this cluster has: a, b"));
}

#[test]
fn a_base_image_gives_what_is_not_there_yet() {
    let base = Image::builder().env("A", "base").env("B", "base").file("/f", "base").build();
    let image = Image::builder().env("A", "own").base(&base).file("/g", "own").build();
    assert_eq!((image.env["A"].as_str(), image.env["B"].as_str()), ("own", "base"));
    let fs = meshlab_program::FileSystem::new(&image);
    assert_eq!((fs.read_text("/f").unwrap().as_str(), fs.read_text("/g").unwrap().as_str()), ("base", "own"));
}
