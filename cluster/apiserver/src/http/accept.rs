//! What a client wants to read.

use http::HeaderMap;
use http::header::ACCEPT;
use meshlab_objects::{Reason, Status};

/// JSON or YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// What objects are turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Representation {
    /// As they are.
    Object,
    /// `as=Table`
    Table,
    /// `as=PartialObjectMetadata` and its list.
    Metadata,
    /// `as=APIGroupDiscoveryList`, with its version.
    AggregatedDiscovery(DiscoveryVersion),
}

/// A version of `apidiscovery.k8s.io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiscoveryVersion {
    V2,
    V2Beta1,
}

impl DiscoveryVersion {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }
}

/// The first entry of an `Accept` header that this server can serve. Weights are ignored, as no client of Kubernetes sends
/// them in another order than its preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) encoding: Encoding,
    pub(crate) representation: Representation,
}

impl Accept {
    /// JSON objects.
    pub(crate) const JSON: Self = Self { encoding: Encoding::Json, representation: Representation::Object };

    /// # Errors
    /// 406 if nothing that is acceptable can be served.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, Status> {
        let mut any = false;
        for value in headers.get_all(ACCEPT) {
            let value = value.to_str().unwrap_or_default();
            for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                any = true;
                if let Some(accept) = Self::parse_entry(entry) {
                    return Ok(accept);
                }
            }
        }
        if any {
            return Err(Status::new(
                Reason::NotAcceptable,
                "only the following media types are accepted: application/json, application/yaml",
            ));
        }
        Ok(Self::JSON)
    }

    fn parse_entry(entry: &str) -> Option<Self> {
        let mut parts = entry.split(';').map(str::trim);
        let encoding = match parts.next()? {
            "application/json" | "*/*" | "application/*" | "text/plain" | "text/html" => Encoding::Json,
            "application/yaml" | "application/x-yaml" | "text/yaml" => Encoding::Yaml,
            _ => return None,
        };
        let (mut kind, mut group, mut version) = ("", "", "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name {
                "as" => kind = value,
                "g" => group = value,
                "v" => version = value,
                _ => {}
            }
        }
        let representation = match (kind, group, version) {
            ("", _, _) => Representation::Object,
            ("Table", "meta.k8s.io", "v1" | "v1beta1") => Representation::Table,
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1" | "v1beta1") => Representation::Metadata,
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Representation::AggregatedDiscovery(DiscoveryVersion::V2),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
                Representation::AggregatedDiscovery(DiscoveryVersion::V2Beta1)
            }
            _ => return None,
        };
        Some(Self { encoding, representation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(header: &str) -> Result<Accept, Status> {
        Accept::parse(&HeaderMap::from_iter([(ACCEPT, header.parse().unwrap())]))
    }

    #[test]
    fn the_first_entry_that_can_be_served_wins() {
        let table =
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(table).unwrap().representation, Representation::Table);
        assert_eq!(accept("application/vnd.kubernetes.protobuf,application/json").unwrap(), Accept::JSON);
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let expected = Representation::AggregatedDiscovery(DiscoveryVersion::V2);
        assert_eq!(accept(discovery).unwrap().representation, expected);
        assert_eq!(accept("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(accept("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
    }
}
