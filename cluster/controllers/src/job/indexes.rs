//! Completion indexes. No input or output here.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::indexes_where;
use crate::pods;

/// The indexes that have succeeded, in order.
pub(super) fn succeeded(owned: &[Arc<Pod>]) -> Vec<i32> {
    indexes_where(owned, |pod| pods::phase(pod) == "Succeeded").into_keys().collect()
}

/// The next `count` indexes to run: those that neither run nor have succeeded, lowest first.
pub(super) fn missing(job: &Job, owned: &[Arc<Pod>], count: usize) -> Vec<i32> {
    let completions = job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or(1);
    let taken = indexes_where(owned, |pod| pods::is_active(pod) || pods::phase(pod) == "Succeeded");
    (0..completions).filter(|index| !taken.contains_key(index)).take(count).collect()
}

/// `0-2,5` for 0, 1, 2 and 5.
pub(super) fn format(indexes: &[i32]) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let text = |(first, last): &(i32, i32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_ranges() {
        assert_eq!(format(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(format(&[]), "");
    }
}
