//! The language of a page.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use http::{HeaderMap, header};

use super::texts::TEXTS;
use super::{Query, parameter};

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Ja,
    En,
}

type Texts = BTreeMap<&'static str, &'static str>;

static JA: LazyLock<Texts> = LazyLock::new(|| TEXTS.iter().map(|(name, ja, _)| (*name, *ja)).collect());
static EN: LazyLock<Texts> = LazyLock::new(|| TEXTS.iter().map(|(name, _, en)| (*name, *en)).collect());

impl Language {
    /// `?lang=` decides, else the first language of `Accept-Language` that there is, else English.
    pub(crate) fn of(query: &Query, headers: &HeaderMap) -> Self {
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let known = |tag: &str| match tag.trim().get(..2) {
            Some("ja") => Some(Self::Ja),
            Some("en") => Some(Self::En),
            _ => None,
        };
        parameter(query, "lang").and_then(known).or_else(|| accepted.split(',').find_map(known)).unwrap_or(Self::En)
    }

    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Ja => "ja",
            Self::En => "en",
        }
    }

    /// All texts by name.
    pub(crate) fn texts(self) -> &'static Texts {
        match self {
            Self::Ja => &JA,
            Self::En => &EN,
        }
    }

    /// The text called `name`; the name itself if there is none.
    pub(crate) fn text(self, name: &'static str) -> &'static str {
        self.texts().get(name).copied().unwrap_or(name)
    }
}
