//! The file system of a container, as its programs see it.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use meshlab_program::{FileSystem, FileType, Image, ProjectedFile, Volume};

fn fresh() -> FileSystem {
    FileSystem::new(&Image::builder().file("/etc/app/config", "from the image").build())
}

fn names(fs: &FileSystem, path: &str) -> Vec<String> {
    fs.list(path).unwrap().into_iter().map(|(name, _)| name).collect()
}

fn projected(files: &[(&str, &str)]) -> BTreeMap<String, ProjectedFile> {
    let file = |(path, content): &(&str, &str)| {
        ((*path).to_owned(), ProjectedFile { content: content.as_bytes().to_vec().into(), mode: 0o644 })
    };
    files.iter().map(file).collect()
}

#[test]
fn what_is_written_in_one_container_is_not_in_the_image() {
    let image = Image::builder().file("/a", "1").build();
    let (one, other) = (FileSystem::new(&image), FileSystem::new(&image));
    one.write("/a", "2").unwrap();
    one.remove_dir_all("/tmp").unwrap();
    assert_eq!(other.read_text("/a").unwrap(), "1");
    assert!(other.exists("/tmp"));
}

#[test]
fn files_are_written_appended_listed_and_moved() {
    let fs = fresh();
    fs.create_dir_all("/data/deep").unwrap();
    fs.write("/data/f", "one").unwrap();
    fs.append("/data/f", b" two").unwrap();
    assert_eq!(fs.read_text("/data/f").unwrap(), "one two");
    assert_eq!(fs.metadata("/data/f").unwrap().size, 7);
    fs.rename("/data/f", "/data/deep/g").unwrap();
    assert_eq!((names(&fs, "/data"), names(&fs, "/data/deep")), (vec!["deep".to_owned()], vec!["g".to_owned()]));
    fs.remove_file("/data/deep/g").unwrap();
    fs.remove_dir("/data/deep").unwrap();
    assert_eq!(names(&fs, "/data"), [""; 0]);
}

#[test]
fn errors_have_the_kinds_and_words_of_the_operating_system() {
    let fs = fresh();
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(fs.write("/none/f", "")), ErrorKind::NotFound);
    assert_eq!(kind(fs.write("/etc", "")), ErrorKind::IsADirectory);
    assert_eq!(kind(fs.write("/etc/app/config/x", "")), ErrorKind::NotADirectory);
    assert_eq!(kind(fs.create_dir("/etc")), ErrorKind::AlreadyExists);
    assert_eq!(kind(fs.remove_dir("/etc")), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(fs.remove_file("/etc")), ErrorKind::IsADirectory);
    assert_eq!(kind(fs.rename("/etc", "/etc/app/inside")), ErrorKind::InvalidInput);
    assert_eq!(kind(fs.write(&format!("/{}", "x".repeat(256)), "")), ErrorKind::InvalidFilename);
    assert_eq!(kind(fs.remove_dir_all("/")), ErrorKind::ResourceBusy);
    assert_eq!(fs.read("/none").unwrap_err().to_string(), "No such file or directory");
}

#[test]
fn paths_are_resolved_inside() {
    let fs = fresh();
    assert_eq!(fs.read_text("/../../etc/./app//config").unwrap(), "from the image");
    fs.symlink("../etc", "/tmp/link").unwrap();
    assert_eq!(fs.read_text("/tmp/link/app/config").unwrap(), "from the image");
    assert_eq!(fs.canonicalize("/tmp/link/app/..").unwrap(), "/etc");
    assert_eq!(fs.symlink_metadata("/tmp/link").unwrap().file_type, FileType::Symlink);
    fs.symlink("/tmp/loop", "/tmp/loop").unwrap();
    assert_eq!(fs.read("/tmp/loop").unwrap_err().to_string(), "Too many levels of symbolic links");
    fs.write("/dev/null", "swallowed").unwrap();
    assert_eq!(fs.read_text("/dev/null").unwrap(), "");
}

#[test]
fn a_volume_is_shared_and_a_full_one_refuses() {
    let volume = Volume::empty_dir(2000);
    let (one, other) = (fresh(), fresh());
    one.mount("/shared", &volume, "", false).unwrap();
    other.mount("/mnt/in", &volume, "", true).unwrap();
    one.write("/shared/f", "x").unwrap();
    assert_eq!(other.read_text("/mnt/in/f").unwrap(), "x");
    assert_eq!(other.write("/mnt/in/f", "y").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(one.write("/shared/g", vec![0; 4000]).unwrap_err().kind(), ErrorKind::StorageFull);
    // Empty files take room, too, and what is removed gives it back.
    let made = (0..100).take_while(|index| one.write(&format!("/shared/{index}"), "").is_ok()).count();
    assert!((1..20).contains(&made), "{made}");
    for index in 0..made {
        one.remove_file(&format!("/shared/{index}")).unwrap();
    }
    one.write("/shared/again", vec![0; 500]).unwrap();
    assert_eq!(one.rename("/shared/again", "/tmp/again").unwrap_err().kind(), ErrorKind::CrossesDevices);
    assert_eq!(one.remove_dir_all("/shared").unwrap_err().kind(), ErrorKind::ResourceBusy);
}

#[test]
fn the_writable_layer_is_bounded() {
    let fs = fresh();
    let piece = vec![0; 10 << 20];
    let written = (0..20).take_while(|index| fs.write(&format!("/tmp/{index}"), piece.clone()).is_ok()).count();
    assert_eq!(written, 6, "64 MiB hold six times 10 MiB");
}

#[test]
fn a_projected_volume_changes_as_a_whole() {
    let volume = Volume::projected(&projected(&[("app.conf", "1"), ("dir/other", "2")])).unwrap();
    let fs = fresh();
    fs.mount("/config", &volume, "", true).unwrap();
    fs.mount("/etc/single.conf", &volume, "app.conf", true).unwrap();
    assert_eq!(fs.read_text("/config/dir/other").unwrap(), "2");
    assert_eq!(fs.read_link("/config/app.conf").unwrap(), "..data/app.conf");
    volume.replace(&projected(&[("app.conf", "new")])).unwrap();
    assert_eq!(fs.read_text("/config/app.conf").unwrap(), "new");
    assert!(!fs.exists("/config/dir"));
    assert_eq!(fs.read_text("/etc/single.conf").unwrap(), "1", "a subPath mount gets no updates, as in Kubernetes");
    assert_eq!(volume.replace(&projected(&[("../out", "")])).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn sub_paths_are_made_where_they_are_missing_and_mounts_nest() {
    let (outer, inner) = (Volume::empty_dir(10_000), Volume::empty_dir(10_000));
    let fs = fresh();
    fs.mount("/a", &outer, "sub/dir", false).unwrap();
    fs.mount("/a/b", &inner, "", false).unwrap();
    fs.write("/a/x", "outer").unwrap();
    fs.write("/a/b/y", "inner").unwrap();
    let all = fresh();
    all.mount("/all", &outer, "", false).unwrap();
    assert_eq!(
        (names(&all, "/all/sub/dir"), names(&fs, "/a")),
        (vec!["b".to_owned(), "x".to_owned()], vec!["b".to_owned(), "x".to_owned()])
    );
    assert_eq!((names(&all, "/all/sub/dir/b"), names(&fs, "/a/b")), (vec![], vec!["y".to_owned()]));
}

#[test]
fn a_read_only_root_still_takes_volumes() {
    let fs = fresh();
    fs.set_root_read_only();
    fs.mount("/var/cache", &Volume::empty_dir(10_000), "", false).unwrap();
    fs.write("/var/cache/f", "x").unwrap();
    assert_eq!(fs.write("/tmp/f", "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
}
