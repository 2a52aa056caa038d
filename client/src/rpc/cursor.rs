//! Cursors: long results in parts (protocol section 7). Owns both sides, and the lifetime of what nobody fetches.

use bytes::Bytes;
use futures_core::Stream;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};
use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::router::encode;
use crate::{Client, Error, RpcError};

/// For how long a cursor is kept that nobody asks.
const LIFETIME: Duration = Duration::from_secs(60);
/// Cursors of one router that are open at once.
const OPEN_CURSORS: usize = 10_000;
/// The most items of one block.
const BLOCK_ITEMS: u64 = 100_000;

/// What names a cursor: usually a UUID, as bytes or as text. Given back as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Token {
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

/// What a method with a cursor answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    u: Token,
}

/// What the method for the next items takes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Next {
    u: Token,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
}

/// Items as msgpack.
pub(crate) type EncodedItems = Pin<Box<dyn Stream<Item = Result<Vec<u8>, RpcError>> + Send>>;

/// Encodes the items of a stream.
pub(crate) struct Encoded<S>(pub(crate) Pin<Box<S>>);

impl<S: Stream<Item: Serialize>> Stream for Encoded<S> {
    type Item = Result<Vec<u8>, RpcError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context).map(|item| item.map(|item| encode(&item)))
    }
}

/// Encodes the items of an iterator.
pub(crate) struct Items<I>(pub(crate) I);

impl<I: Iterator<Item: Serialize> + Unpin> Stream for Items<I> {
    type Item = Result<Vec<u8>, RpcError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(|item| encode(&item)))
    }
}

/// The open cursors of a router.
pub(crate) struct Cursors {
    /// A leaf, held for no item.
    state: Mutex<State>,
}

struct State {
    lifetime: Duration,
    open: HashMap<Token, Open>,
}

struct Open {
    /// Whoever opened it; nobody else gets its items.
    owner: String,
    used: Instant,
    items: Arc<tokio::sync::Mutex<EncodedItems>>,
}

impl Default for Cursors {
    fn default() -> Self {
        Cursors { state: Mutex::new(State { lifetime: LIFETIME, open: HashMap::new() }) }
    }
}

impl Cursors {
    pub(crate) fn set_lifetime(&self, lifetime: Duration) {
        self.state.lock().lifetime = lifetime;
    }

    pub(crate) fn open(&self, owner: String, items: EncodedItems) -> Result<Opened, RpcError> {
        let token = Token::Bytes(uuid::Uuid::new_v4().as_bytes().to_vec());
        let mut state = self.state.lock();
        let expired = state.take_expired();
        if state.open.len() >= OPEN_CURSORS {
            return Err(RpcError::internal(format!("{OPEN_CURSORS} cursors are open, which is the limit")));
        }
        let items = Arc::new(tokio::sync::Mutex::new(items));
        state.open.insert(token.clone(), Open { owner, used: Instant::now(), items });
        drop(state);
        drop(expired);
        Ok(Opened { u: token })
    }

    pub(crate) async fn next(&self, caller: &str, next: Next) -> Result<Bytes, RpcError> {
        let wanted = next.n.unwrap_or(1);
        if wanted > BLOCK_ITEMS {
            let text = format!("a block of {wanted} items exceeds {BLOCK_ITEMS}");
            return Err(RpcError::invalid_params(text));
        }
        let items = {
            let mut state = self.state.lock();
            let expired = state.take_expired();
            let open = state.open.get_mut(&next.u).filter(|open| open.owner == caller);
            let items = open.map(|open| {
                open.used = Instant::now();
                open.items.clone()
            });
            drop(state);
            drop(expired);
            items.ok_or_else(RpcError::not_found)?
        };
        let mut items = items.lock().await;
        let mut found = Vec::new();
        while (found.len() as u64) < wanted {
            match poll_fn(|context| items.as_mut().poll_next(context)).await {
                Some(item) => found.push(item?),
                None => {
                    self.close(&next.u);
                    break;
                }
            }
        }
        if let Some(open) = self.state.lock().open.get_mut(&next.u) {
            open.used = Instant::now();
        }
        Ok(match next.n {
            None => found.pop().unwrap_or_default().into(),
            Some(_) => block(&found).into(),
        })
    }

    fn close(&self, token: &Token) {
        let closed = self.state.lock().open.remove(token);
        drop(closed);
    }
}

impl State {
    /// What comes back is to be dropped outside the lock.
    fn take_expired(&mut self) -> Vec<Open> {
        let lifetime = self.lifetime;
        let expired = self.open.extract_if(|_, open| open.used.elapsed() > lifetime);
        expired.map(|(_, open)| open).collect()
    }
}

/// An array of items that are encoded already.
fn block(items: &[Vec<u8>]) -> Vec<u8> {
    let mut out = match items.len() {
        count @ 0..=15 => vec![0x90 | count as u8],
        count @ 16..=0xFFFF => [&[0xDC], &(count as u16).to_be_bytes()[..]].concat(),
        count => [&[0xDD], &(count as u32).to_be_bytes()[..]].concat(),
    };
    out.extend(items.iter().flatten());
    out
}

/// What a cursor gives: anything that serde can take from msgpack.
pub trait CursorItem: DeserializeOwned {}

impl<T: DeserializeOwned> CursorItem for T {}

/// A long result that is fetched in parts; from [`Client::cursor`].
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
    /// Calls a method that answers with a cursor. `next` is the method that gives its items; the callee's documentation says.
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
    pub async fn cursor<T: CursorItem>(
        &self,
        target: &str,
        method: &str,
        params: &(impl Serialize + ?Sized),
        next: &str,
    ) -> Result<Cursor<T>, Error> {
        let opened: Opened = self.call_as(target, method, params).await?;
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

impl<T: CursorItem> Cursor<T> {
    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// As [`call_as`](Client::call_as); [`Error::Rpc`] with -32001 where the callee has dropped the cursor.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        if self.ended {
            return Ok(None);
        }
        let params = super::call::encode_params(&Next { u: self.token.clone(), n: None })?;
        let item = self.client.call(&self.target, &self.next, params).await?;
        if item.is_empty() {
            self.ended = true;
            return Ok(None);
        }
        super::call::decode_result(&item, &self.target, &self.next).map(Some)
    }

    /// The next `count` items; fewer at the end, none behind it.
    ///
    /// # Errors
    /// As [`next`](Cursor::next).
    pub async fn block(&mut self, count: u32) -> Result<Vec<T>, Error> {
        if self.ended || count == 0 {
            return Ok(Vec::new());
        }
        let params = Next { u: self.token.clone(), n: Some(u64::from(count)) };
        let items: Vec<T> = self.client.call_as(&self.target, &self.next, &params).await?;
        self.ended = (items.len() as u64) < u64::from(count);
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(count: u32) -> (Cursors, Token) {
        let cursors = Cursors::default();
        let opened = cursors.open("me".to_owned(), Box::pin(Items(0..count))).unwrap();
        (cursors, opened.u)
    }

    #[tokio::test]
    async fn one_at_a_time() {
        let (cursors, u) = cursors(2);
        let next = || cursors.next("me", Next { u: u.clone(), n: None });
        assert_eq!(next().await.unwrap(), &[0][..]);
        assert_eq!(next().await.unwrap(), &[1][..]);
        assert_eq!(next().await.unwrap(), &[][..]);
        assert_eq!(next().await.unwrap_err(), RpcError::not_found());
    }

    #[tokio::test]
    async fn blocks_of_any_size() {
        for count in [0u32, 1, 15, 16, 70_000] {
            let (cursors, u) = cursors(count);
            let all = cursors.next("me", Next { u: u.clone(), n: Some(80_000) }).await.unwrap();
            let items: Vec<u32> = rmp_serde::from_slice(&all).unwrap();
            assert_eq!(items, (0..count).collect::<Vec<_>>());
            assert!(cursors.next("me", Next { u, n: Some(1) }).await.is_err(), "it was the end");
        }
    }

    #[tokio::test]
    async fn nobody_else_gets_the_items() {
        let (cursors, u) = cursors(2);
        assert_eq!(cursors.next("you", Next { u: u.clone(), n: None }).await, Err(RpcError::not_found()));
        assert!(cursors.next("me", Next { u, n: Some(BLOCK_ITEMS + 1) }).await.is_err());
    }

    #[tokio::test]
    async fn a_cursor_that_nobody_asks_is_dropped() {
        let (cursors, u) = cursors(2);
        cursors.set_lifetime(Duration::ZERO);
        assert_eq!(cursors.next("me", Next { u, n: None }).await, Err(RpcError::not_found()));
        assert!(cursors.state.lock().open.is_empty());
    }

    #[test]
    fn tokens_come_back_as_they_came() {
        for token in [Token::Bytes(vec![1; 16]), Token::Text("0b6b1f2e".to_owned())] {
            let bytes = rmp_serde::to_vec_named(&Opened { u: token.clone() }).unwrap();
            assert_eq!(rmp_serde::from_slice::<Opened>(&bytes).unwrap().u, token);
        }
    }
}
