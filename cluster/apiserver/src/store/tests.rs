use std::fs;

use serde_json::json;

use super::*;

fn pods() -> GroupResource {
    GroupResource::new("", "pods")
}

fn put(store: &Store, name: &str, expect: Expect) -> Arc<Object> {
    let value = json!({"metadata": {"name": name, "namespace": "a"}});
    store.commit(&pods(), &Key::new("a", name), expect, Write::Put(value)).unwrap()
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.objects.iter().map(|object| object.key.name()).collect()
}

#[test]
fn a_list_at_an_earlier_revision_is_what_it_was() {
    let store = Store::open(None).unwrap();
    let one = put(&store, "one", Expect::Absent);
    let two = put(&store, "two", Expect::Absent);
    let at = store.revision();
    put(&store, "three", Expect::Absent);
    store.commit(&pods(), &Key::new("a", "one"), Expect::Revision(one.revision), Write::Delete((*one.value()).clone())).unwrap();
    put(&store, "two", Expect::Revision(two.revision));
    assert_eq!(names(&store.list(&pods(), Some("a"))), ["three", "two"]);
    let then = store.list_at(&pods(), Some("a"), at).unwrap();
    assert_eq!(names(&then), ["one", "two"]);
    assert_eq!(then.objects[1].revision, two.revision);
    assert!(store.list_at(&pods(), Some("b"), at).unwrap().objects.is_empty());
}

#[test]
fn expectations_are_kept() {
    let store = Store::open(None).unwrap();
    let first = put(&store, "one", Expect::Absent);
    put(&store, "one", Expect::Revision(first.revision));
    let again = |expect| store.commit(&pods(), &Key::new("a", "one"), expect, Write::Put(json!({}))).unwrap_err().to_string();
    assert_eq!(again(Expect::Absent), "the object exists");
    assert_eq!(again(Expect::Revision(first.revision)), "the object has been modified");
}

#[tokio::test]
async fn a_watcher_sees_every_change_in_order_and_learns_that_it_was_too_slow() {
    let store = Store::open(None).unwrap();
    let mut watcher = store.watch(&pods(), store.revision()).unwrap();
    let mut object = put(&store, "one", Expect::Absent);
    assert_eq!(watcher.next().await.unwrap()[0].change, Change::Added);
    for _ in 0..9000 {
        object = put(&store, "one", Expect::Revision(object.revision));
    }
    let expired = watcher.next().await.unwrap_err();
    assert!(expired.oldest > expired.requested);
    assert!(store.watch(&pods(), 3).is_err());
}

#[test]
fn acknowledged_writes_are_there_after_a_crash_and_a_torn_tail_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let log = journal::log_path(directory.path(), 1);
    let store = Store::open(Some(directory.path())).unwrap();
    put(&store, "one", Expect::Absent);
    let whole = fs::metadata(&log).unwrap().len();
    put(&store, "two", Expect::Absent);
    let revision = store.revision();
    drop(store);
    let bytes = fs::read(&log).unwrap();
    assert_eq!(names(&Store::open(Some(directory.path())).unwrap().list(&pods(), None)), ["one", "two"]);
    assert_eq!(Store::open(Some(directory.path())).unwrap().revision(), revision);
    for cut in whole + 1..bytes.len() as u64 {
        fs::write(&log, &bytes[..usize::try_from(cut).unwrap()]).unwrap();
        let store = Store::open(Some(directory.path())).unwrap();
        assert_eq!(names(&store.list(&pods(), None)), ["one"], "cut at {cut}");
        assert_eq!(fs::metadata(&log).unwrap().len(), whole);
    }
}

#[test]
fn other_damage_names_the_file_and_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Some(directory.path())).unwrap();
    put(&store, "one", Expect::Absent);
    put(&store, "two", Expect::Absent);
    drop(store);
    let log = journal::log_path(directory.path(), 1);
    let mut bytes = fs::read(&log).unwrap();
    bytes[20] ^= 1;
    fs::write(&log, bytes).unwrap();
    let error = Store::open(Some(directory.path())).err().unwrap().to_string();
    assert!(error.contains("state-000001.log is damaged at byte 0") && error.contains("start afresh"), "{error}");
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let _store = Store::open(Some(directory.path())).unwrap();
    assert!(matches!(Store::open(Some(directory.path())), Err(OpenError::InUse { .. })));
}

#[test]
fn compaction_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Some(directory.path())).unwrap();
    let filler = "x".repeat(1 << 20);
    let mut expect = Expect::Absent;
    for _ in 0..20 {
        let value = json!({"metadata": {"name": "big"}, "data": filler});
        expect = Expect::Revision(store.commit(&pods(), &Key::new("a", "big"), expect, Write::Put(value)).unwrap().revision);
    }
    put(&store, "small", Expect::Absent);
    let revision = store.revision();
    drop(store);
    let store = Store::open(Some(directory.path())).unwrap();
    assert_eq!((names(&store.list(&pods(), None)), store.revision()), (vec!["big", "small"], revision));
    assert!(!journal::log_path(directory.path(), 1).exists() || journal::log_path(directory.path(), 2).exists());
}

#[test]
fn what_an_earlier_life_changed_is_forgotten_and_watchers_learn_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Some(directory.path())).unwrap();
    let one = put(&store, "one", Expect::Absent);
    store.commit(&pods(), &Key::new("a", "one"), Expect::Revision(one.revision), Write::Delete((*one.value()).clone())).unwrap();
    drop(store);
    let store = Store::open(Some(directory.path())).unwrap();
    assert!(store.watch(&pods(), one.revision).is_err());
    assert!(store.list_at(&pods(), None, one.revision).is_err());
    assert!(store.watch(&pods(), store.revision()).is_ok());
}

#[tokio::test]
async fn a_late_watcher_reads_packed_changes_as_they_were() {
    let store = Store::open(None).unwrap();
    let born = store.revision();
    let one = put(&store, "one", Expect::Absent);
    let changed = json!({"metadata": {"name": "one"}, "spec": {"nodeName": "node"}});
    let two = store.commit(&pods(), &Key::new("a", "one"), Expect::Revision(one.revision), Write::Put(changed)).unwrap();
    let tell = |events: Vec<Arc<Event>>| -> Vec<_> {
        let before = |event: &Event| event.previous.as_ref().map(|previous| (previous.revision, previous.value().clone()));
        events.iter().map(|event| (event.change, event.object.value().clone(), before(event), event.frame())).collect()
    };
    let fresh = tell(store.watch(&pods(), born).unwrap().next().await.unwrap());
    store.history(&pods()).pack_older_than(Duration::ZERO);
    let packed = tell(store.watch(&pods(), born).unwrap().next().await.unwrap());
    assert_eq!(packed, fresh);
    assert_eq!(packed.len(), 2);
    assert_eq!(store.list_at(&pods(), None, one.revision).unwrap().objects[0].value(), one.value());
    put(&store, "three", Expect::Absent);
    let last = store.watch(&pods(), two.revision).unwrap().next().await.unwrap();
    assert_eq!((last.len(), last[0].object.key.name()), (1, "three"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Some(directory.path())).unwrap();
    put(&store, "one", Expect::Absent);
    let revision = store.revision();
    store.fill_the_disk();
    let value = json!({"metadata": {"name": "two"}});
    let error = store.commit(&pods(), &Key::new("a", "two"), Expect::Absent, Write::Put(value)).unwrap_err().to_string();
    assert!(error.contains("state-000001.log") && error.contains("No space left on device"), "{error}");
    assert_eq!((names(&store.list(&pods(), None)), store.revision()), (vec!["one"], revision));
}
