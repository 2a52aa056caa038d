//! A part of a filter. A short label, as most are, is stored inline: comparing it reads no other memory.

const SHORT: usize = 30;

/// The bytes of a label.
pub(in crate::routing) enum Label {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl Default for Label {
    fn default() -> Self {
        Label::Short { len: 0, bytes: [0; SHORT] }
    }
}

impl From<&[u8]> for Label {
    fn from(text: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..text.len()) {
            Some(short) => {
                short.copy_from_slice(text);
                Label::Short { len: text.len() as u8, bytes }
            }
            None => Label::Long(text.into()),
        }
    }
}

impl std::ops::Deref for Label {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Label::Short { len, bytes } => &bytes[..usize::from(*len).min(SHORT)],
            Label::Long(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_any_length() {
        let text = [b'x'; 100];
        for len in 0..text.len() {
            assert_eq!(&*Label::from(&text[..len]), &text[..len]);
        }
        assert_eq!(size_of::<Label>(), 32);
    }
}
