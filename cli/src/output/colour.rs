//! Colours of the terminal. Never decides whether there are any.

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Of less interest: time, what was left out.
    Dim,
    /// A heading.
    Strong,
    /// A client.
    Name,
    /// A topic or a method.
    Topic,
    /// What kind of frame it is.
    Kind,
}

/// Paints, or leaves text as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette {
    on: bool,
}

impl Palette {
    /// No colours.
    #[cfg(test)]
    pub(crate) const PLAIN: Palette = Palette { on: false };

    pub(crate) fn new(on: bool) -> Self {
        Palette { on }
    }

    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Dim => "2",
            Tone::Strong => "1",
            Tone::Name => "32",
            Tone::Topic => "36",
            Tone::Kind => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paints_only_where_asked() {
        assert_eq!(Palette::new(true).paint(Tone::Name, "a"), "\x1b[32ma\x1b[0m");
        assert_eq!(Palette::new(true).paint(Tone::Name, ""), "");
        assert_eq!(Palette::new(false).paint(Tone::Name, "a"), "a");
    }
}
