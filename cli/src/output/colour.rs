//! Colours of text on a terminal. Never decides whether colours are used.

/// The role of a piece of text, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Minor information, such as times.
    Dim,
    /// A heading.
    Strong,
    /// The name of a client.
    Name,
    /// A topic or a method.
    Topic,
    /// The kind of a frame.
    Kind,
}

/// Colours text, or leaves it unchanged if colours are off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette {
    on: bool,
}

impl Palette {
    /// Colours are off.
    #[cfg(test)]
    pub(crate) const PLAIN: Palette = Palette { on: false };

    pub(crate) fn new(on: bool) -> Self {
        Palette { on }
    }

    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Dim => "2",
            Style::Strong => "1",
            Style::Name => "32",
            Style::Topic => "36",
            Style::Kind => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_coloured_only_if_colours_are_on() {
        assert_eq!(Palette::new(true).paint(Style::Name, "a"), "\x1b[32ma\x1b[0m");
        assert_eq!(Palette::new(true).paint(Style::Name, ""), "");
        assert_eq!(Palette::new(false).paint(Style::Name, "a"), "a");
    }
}
