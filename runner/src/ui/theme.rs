//! Colours by what they mean. Every meaning can also be told without colour, by a mark, a word or weight.

use ratatui::style::{Color, Modifier, Style};

/// How the screen is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    /// For dark terminals.
    Dark,
    /// For light terminals.
    Light,
    /// Without colour (<https://no-color.org>): weight alone.
    Mono,
}

/// What a piece of the screen is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A step's title.
    Title,
    /// A heading within the text.
    Heading,
    /// Commands, YAML, and code within a sentence.
    Code,
    /// What is there but not in front: borders, ids, output.
    Faint,
    /// Keys, and the mark of the current block.
    Accent,
    /// Passed.
    Pass,
    /// Failed.
    Fail,
    /// Could not be measured; questions.
    Warn,
    /// Under way.
    Running,
}

impl Theme {
    /// The next theme, round and round.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Dark => Self::Light,
            Self::Light => Self::Mono,
            Self::Mono => Self::Dark,
        }
    }

    pub(crate) fn style(self, role: Role) -> Style {
        let weight = match role {
            Role::Title | Role::Heading | Role::Accent | Role::Fail | Role::Warn => Modifier::BOLD,
            Role::Faint if self == Self::Mono => Modifier::DIM,
            Role::Code | Role::Faint | Role::Pass | Role::Running => Modifier::empty(),
        };
        // The light palette keeps to colours that can be read on white: of the 16, yellow, green and cyan cannot.
        let colour = match (self, role) {
            (Self::Mono, _) => return Style::new().add_modifier(weight),
            (Self::Dark, Role::Title) => Color::LightMagenta,
            (Self::Dark, Role::Heading) => Color::LightBlue,
            (Self::Dark, Role::Code) => Color::Cyan,
            (Self::Dark, Role::Accent) => Color::LightYellow,
            (Self::Dark, Role::Pass) => Color::LightGreen,
            (Self::Dark, Role::Fail) => Color::LightRed,
            (Self::Dark, Role::Warn) => Color::Yellow,
            (Self::Dark, Role::Running) => Color::LightBlue,
            (Self::Light, Role::Title) => Color::Magenta,
            (Self::Light, Role::Heading | Role::Running) => Color::Blue,
            (Self::Light, Role::Code) => Color::Indexed(24),
            (Self::Light, Role::Accent | Role::Warn) => Color::Indexed(130),
            (Self::Light, Role::Pass) => Color::Indexed(28),
            (Self::Light, Role::Fail) => Color::Red,
            (Self::Dark | Self::Light, Role::Faint) => Color::DarkGray,
        };
        Style::new().fg(colour).add_modifier(weight)
    }
}
