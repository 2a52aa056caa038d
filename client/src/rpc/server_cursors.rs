//! The server's side of cursors. Owns the open cursors of a router and their expiry; never calls.

use bytes::Bytes;
use elbus_protocol::name::primary_of;
use futures_core::Stream;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    cursor::{NextParams, OpenedCursor, Token},
    msgpack::{encode_array, encode_result},
};
use crate::error::rpc_error::RpcError;

/// Default time after which an unused cursor expires.
const LIFETIME: Duration = Duration::from_secs(60);
/// Limit of open cursors of one router.
const MAX_CURSORS: usize = 10_000;
/// Limit of those that one client has opened, with its secondary clients: others must have some left.
const MAX_CALLER_CURSORS: usize = 1_000;
/// Limit of items in one block.
const MAX_BLOCK_ITEMS: u64 = 100_000;

/// Items as msgpack.
pub(super) type EncodedItems = Pin<Box<dyn Stream<Item = Result<Vec<u8>, RpcError>> + Send>>;

/// Encodes the items of a stream.
pub(super) struct EncodedStream<S>(pub(super) Pin<Box<S>>);

impl<S: Stream<Item: Serialize>> Stream for EncodedStream<S> {
    type Item = Result<Vec<u8>, RpcError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context).map(|item| item.map(|item| encode_result(&item)))
    }
}

/// Encodes the items of an iterator.
pub(super) struct EncodedIter<I>(pub(super) I);

impl<I: Iterator<Item: Serialize> + Unpin> Stream for EncodedIter<I> {
    type Item = Result<Vec<u8>, RpcError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(|item| encode_result(&item)))
    }
}

/// The open cursors of a router.
pub(super) struct ServerCursors {
    /// A leaf. Items are produced and cursors dropped without it: both run code of the user.
    state: Mutex<State>,
}

struct State {
    lifetime: Duration,
    open: HashMap<Token, OpenCursor>,
}

struct OpenCursor {
    /// The client that has opened it; no other client gets its items.
    owner: String,
    last_used: Instant,
    items: Arc<tokio::sync::Mutex<EncodedItems>>,
}

impl Default for ServerCursors {
    fn default() -> Self {
        ServerCursors { state: Mutex::new(State { lifetime: LIFETIME, open: HashMap::new() }) }
    }
}

impl ServerCursors {
    pub(super) fn set_lifetime(&self, lifetime: Duration) {
        self.state.lock().lifetime = lifetime;
    }

    pub(super) fn open(&self, owner: String, items: EncodedItems) -> Result<OpenedCursor, RpcError> {
        let token = Token::Bytes(uuid::Uuid::new_v4().as_bytes().to_vec());
        let cursor =
            OpenCursor { owner, last_used: Instant::now(), items: Arc::new(tokio::sync::Mutex::new(items)) };
        let mut state = self.state.lock();
        let expired = state.take_expired();
        let rejected = match state.check_limits(&cursor.owner) {
            Ok(()) => {
                state.open.insert(token.clone(), cursor);
                Ok(OpenedCursor { u: token })
            }
            Err(text) => Err((cursor, RpcError::internal(text))),
        };
        drop(state);
        drop(expired);
        // a rejected cursor is dropped here, without the lock
        rejected.map_err(|(_, error)| error)
    }

    /// Returns the next item, or a block of items. No bytes are the end.
    pub(super) async fn next(&self, caller: &str, params: NextParams) -> Result<Bytes, RpcError> {
        let count = params.n.unwrap_or(1);
        if count > MAX_BLOCK_ITEMS {
            let text = format!("block of {count} items exceeds the limit of {MAX_BLOCK_ITEMS}");
            return Err(RpcError::invalid_params(text));
        }
        let items = {
            let mut state = self.state.lock();
            let expired = state.take_expired();
            let cursor = state.open.get_mut(&params.u).filter(|cursor| cursor.owner == caller);
            let items = cursor.map(|cursor| {
                cursor.last_used = Instant::now();
                cursor.items.clone()
            });
            drop(state);
            drop(expired);
            items.ok_or_else(RpcError::not_found)?
        };
        let mut items = items.lock().await;
        let mut found = Vec::new();
        while (found.len() as u64) < count {
            match poll_fn(|context| items.as_mut().poll_next(context)).await {
                Some(item) => found.push(item?),
                None => {
                    self.close(&params.u);
                    break;
                }
            }
        }
        if let Some(cursor) = self.state.lock().open.get_mut(&params.u) {
            cursor.last_used = Instant::now();
        }
        Ok(match params.n {
            None => found.pop().unwrap_or_default().into(),
            Some(_) => encode_array(&found).into(),
        })
    }

    fn close(&self, token: &Token) {
        let closed = self.state.lock().open.remove(token);
        drop(closed);
    }
}

impl State {
    /// Returns why this client cannot open a cursor.
    fn check_limits(&self, owner: &str) -> Result<(), String> {
        if self.open.len() >= MAX_CURSORS {
            return Err(format!("limit of {MAX_CURSORS} open cursors reached"));
        }
        let primary = primary_of(owner);
        let own = self.open.values().filter(|cursor| primary_of(&cursor.owner) == primary).count();
        if own >= MAX_CALLER_CURSORS {
            return Err(format!("limit of {MAX_CALLER_CURSORS} open cursors of one client reached"));
        }
        Ok(())
    }

    /// Removes expired cursors. The caller drops them after it has released the lock.
    fn take_expired(&mut self) -> Vec<OpenCursor> {
        let lifetime = self.lifetime;
        let expired = self.open.extract_if(|_, cursor| cursor.last_used.elapsed() > lifetime);
        expired.map(|(_, cursor)| cursor).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn cursors(count: u32) -> (ServerCursors, Token) {
        let cursors = ServerCursors::default();
        let opened = cursors.open("owner".to_owned(), Box::pin(EncodedIter(0..count))).unwrap();
        (cursors, opened.u)
    }

    #[tokio::test]
    async fn items_are_returned_one_by_one() {
        let (cursors, u) = cursors(2);
        let next = || cursors.next("owner", NextParams { u: u.clone(), n: None });
        assert_eq!(next().await.unwrap(), &[0][..]);
        assert_eq!(next().await.unwrap(), &[1][..]);
        assert_eq!(next().await.unwrap(), &[][..]);
        assert_eq!(next().await.unwrap_err(), RpcError::not_found());
    }

    #[tokio::test]
    async fn blocks_have_any_size() {
        for count in [0u32, 1, 15, 16, 70_000] {
            let (cursors, u) = cursors(count);
            let all = cursors.next("owner", NextParams { u: u.clone(), n: Some(80_000) }).await.unwrap();
            let items: Vec<u32> = rmp_serde::from_slice(&all).unwrap();
            assert_eq!(items, (0..count).collect::<Vec<_>>());
            assert!(
                cursors.next("owner", NextParams { u, n: Some(1) }).await.is_err(),
                "the cursor has ended"
            );
        }
    }

    #[tokio::test]
    async fn other_clients_do_not_get_the_items() {
        let (cursors, u) = cursors(2);
        let other = cursors.next("other", NextParams { u: u.clone(), n: None }).await;
        assert_eq!(other, Err(RpcError::not_found()));
        assert!(cursors.next("owner", NextParams { u, n: Some(MAX_BLOCK_ITEMS + 1) }).await.is_err());
    }

    #[tokio::test]
    async fn a_client_with_many_cursors_leaves_some_for_others() {
        let cursors = ServerCursors::default();
        let open = |owner: &str| cursors.open(owner.to_owned(), Box::pin(EncodedIter(0..1u32)));
        for number in 0..MAX_CALLER_CURSORS {
            open(if number % 2 == 0 { "greedy" } else { "greedy%%0" }).unwrap();
        }
        let error = open("greedy%%1").unwrap_err();
        assert!(error.to_string().contains("limit of 1000 open cursors of one client reached"), "{error}");
        let OpenedCursor { u } = open("other").unwrap();
        assert_eq!(cursors.next("other", NextParams { u, n: None }).await.unwrap(), &[0][..]);
    }

    #[tokio::test]
    async fn unused_cursors_expire() {
        let (cursors, u) = cursors(2);
        cursors.set_lifetime(Duration::ZERO);
        assert_eq!(cursors.next("owner", NextParams { u, n: None }).await, Err(RpcError::not_found()));
        assert!(cursors.state.lock().open.is_empty());
    }

    /// Items that record whether the lock is free when they are dropped.
    struct DropProbe(Arc<ServerCursors>, Arc<AtomicBool>);

    impl Iterator for DropProbe {
        type Item = u32;

        fn next(&mut self) -> Option<u32> {
            None
        }
    }

    impl Drop for DropProbe {
        fn drop(&mut self) {
            self.1.store(self.0.state.try_lock().is_some(), Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn expired_cursors_are_dropped_without_the_lock_even_if_the_limit_is_reached() {
        let (cursors, was_free) = (Arc::new(ServerCursors::default()), Arc::new(AtomicBool::new(false)));
        let probe = EncodedIter(DropProbe(cursors.clone(), was_free.clone()));
        cursors.open("owner".to_owned(), Box::pin(probe)).unwrap();
        let last_used = Instant::now() + Duration::from_secs(3600);
        for number in 0..MAX_CURSORS {
            let items: EncodedItems = Box::pin(EncodedIter(0..1));
            let items = Arc::new(tokio::sync::Mutex::new(items));
            let cursor = OpenCursor { owner: "owner".to_owned(), last_used, items };
            cursors.state.lock().open.insert(Token::Text(number.to_string()), cursor);
        }
        cursors.set_lifetime(Duration::ZERO);
        assert!(cursors.open("owner".to_owned(), Box::pin(EncodedIter(0..1))).is_err());
        assert!(was_free.load(Ordering::Relaxed));
    }
}
