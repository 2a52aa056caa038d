//! Cursors: long results that are fetched in parts (protocol section 7). Owns the caller's side and the
//! messages; the server's side is in `server_cursors`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};
use std::{fmt, marker::PhantomData};

use super::msgpack::{decode_result, encode_params};
use crate::{api::client::Client, error::Error};

/// The identifier of a cursor: usually a UUID, as bytes or as text. Returned to the server unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Token {
    Bytes(Vec<u8>),
    Text(String),
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Token::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Token::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Token;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID as bytes or text")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Token, E> {
                Ok(Token::Bytes(bytes.to_vec()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Token, E> {
                Ok(Token::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The result of a method that opens a cursor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OpenedCursor {
    pub(super) u: Token,
}

/// The parameters of the method that returns the next items.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NextParams {
    pub(super) u: Token,
    /// Number of items; one item if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) n: Option<u64>,
}

/// A long result that is fetched in parts; from [`Client::cursor`].
///
/// ```no_run
/// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
/// let mut squares = client.cursor::<u64>("math", "squares", &1000, "squares.next").await?;
/// loop {
///     let block = squares.block(100).await?;
///     if block.is_empty() {
///         break;
///     }
///     println!("{block:?}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Cursor<T> {
    client: Client,
    target: String,
    next: String,
    token: Token,
    ended: bool,
    item: PhantomData<fn() -> T>,
}

impl Client {
    /// Calls a method that opens a cursor. `next` is the method that returns its items; both are documented
    /// by the server.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// let mut squares = client.cursor::<u64>("math", "squares", &1000, "squares.next").await?;
    /// while let Some(square) = squares.next().await? {
    ///     println!("{square}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`call_as`](Client::call_as).
    pub async fn cursor<T: DeserializeOwned>(
        &self,
        target: &str,
        method: &str,
        params: &(impl Serialize + ?Sized),
        next: &str,
    ) -> Result<Cursor<T>, Error> {
        let opened: OpenedCursor = self.call_as(target, method, params).await?;
        Ok(Cursor {
            client: self.clone(),
            target: target.to_owned(),
            next: next.to_owned(),
            token: opened.u,
            ended: false,
            item: PhantomData,
        })
    }
}

impl<T: DeserializeOwned> Cursor<T> {
    /// Returns the next item; `None` at the end.
    ///
    /// # Errors
    /// As [`call_as`](Client::call_as); [`Error::Rpc`] with -32001 if the server has dropped the cursor.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        if self.ended {
            return Ok(None);
        }
        let params = encode_params(&NextParams { u: self.token.clone(), n: None })?;
        let item = self.client.call(&self.target, &self.next, params).await?;
        if item.is_empty() {
            self.ended = true;
            return Ok(None);
        }
        decode_result(&item, &self.target, &self.next).map(Some)
    }

    /// Returns the next `count` items; fewer at the end, and none after it.
    ///
    /// # Errors
    /// As [`next`](Cursor::next).
    pub async fn block(&mut self, count: u32) -> Result<Vec<T>, Error> {
        if self.ended || count == 0 {
            return Ok(Vec::new());
        }
        let params = NextParams { u: self.token.clone(), n: Some(u64::from(count)) };
        let items: Vec<T> = self.client.call_as(&self.target, &self.next, &params).await?;
        self.ended = (items.len() as u64) < u64::from(count);
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_returned_unchanged() {
        for token in [Token::Bytes(vec![1; 16]), Token::Text("0b6b1f2e".to_owned())] {
            let bytes = rmp_serde::to_vec_named(&OpenedCursor { u: token.clone() }).unwrap();
            assert_eq!(rmp_serde::from_slice::<OpenedCursor>(&bytes).unwrap().u, token);
        }
    }
}
