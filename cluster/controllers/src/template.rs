//! Which replica set belongs to a pod template, and what it is called.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label that keeps the pods of two templates of one deployment apart.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// Whether two templates are the same but for the hash label.
pub(crate) fn equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && {
        let (mut a, mut b) = (a.metadata.clone().unwrap_or_default(), b.metadata.clone().unwrap_or_default());
        for metadata in [&mut a, &mut b] {
            if let Some(labels) = &mut metadata.labels {
                labels.remove(HASH_LABEL);
            }
            metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
            metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
            metadata.creation_timestamp = None;
        }
        a == b
    }
}

/// A short name for a template, from an alphabet that spells no words. `collisions` makes another one of the same template.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let bytes = serde_json::to_vec(template).unwrap_or_default();
    let suffix = if collisions > 0 { collisions.to_le_bytes().to_vec() } else { Vec::new() };
    // FNV-1a, 32 bit, as Kubernetes uses.
    let hash =
        bytes.iter().chain(&suffix).fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(labels: serde_json::Value, image: &str) -> PodTemplateSpec {
        let spec = json!({"containers": [{"name": "web", "image": image}]});
        serde_json::from_value(json!({"metadata": {"labels": labels}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_hash_label_makes_no_difference_and_anything_else_does() {
        let plain = template(json!({"app": "web"}), "nginx");
        assert!(equal(&plain, &template(json!({"app": "web", "pod-template-hash": "x"}), "nginx")));
        assert!(!equal(&plain, &template(json!({"app": "web"}), "nginx:2")));
    }

    #[test]
    fn hashes_are_stable_and_collisions_get_another() {
        let plain = template(json!({"app": "web"}), "nginx");
        assert_eq!(hash(&plain, 0), hash(&plain, 0));
        assert_ne!(hash(&plain, 0), hash(&plain, 1));
        assert!(hash(&plain, 0).chars().all(|letter| "bcdfghjklmnpqrstvwxz2456789".contains(letter)));
    }
}
