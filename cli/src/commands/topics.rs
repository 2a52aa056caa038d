//! What `elbus listen` subscribes to: lossily, so that a terminal that is stopped holds no publisher. Falls
//! back to plain filters with brokers that have no options.

use elbus_client::{Client, Error, Options, Overflow};
use elbus_protocol::subscription::{Subscription, has_options};

use crate::{arguments::messages::FeedArguments, context::Context, error::CliError};

/// The topics of a command, and how they are subscribed to.
#[derive(Debug)]
pub(super) struct Topics {
    /// Filters to which an option is added.
    plain: Vec<String>,
    /// Filters that the user has written with options, or to which none can be added.
    as_given: Vec<String>,
    mode: Mode,
    /// The broker has no options, and that was reported.
    falls_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Lossy,
    Latest,
    Lossless,
}

impl Topics {
    /// Returns the topics of a command. Fails if the options of one are malformed.
    pub(super) fn new(arguments: &FeedArguments) -> Result<Self, CliError> {
        for filter in arguments.topics.iter().filter(|filter| has_options(filter)) {
            // the broker's answer would be a code without the reason
            if let Err(reason) = Subscription::parse(filter) {
                return Err(CliError::usage(format!("--topic {filter:?}: {reason}")));
            }
        }
        let add_option = |filter: &String| !filter.is_empty() && !has_options(filter);
        let (plain, as_given) = arguments.topics.iter().cloned().partition(add_option);
        let mode = match (arguments.latest, arguments.lossless) {
            (true, _) => Mode::Latest,
            (_, true) => Mode::Lossless,
            _ => Mode::Lossy,
        };
        Ok(Topics { plain, as_given, mode, falls_back: false })
    }

    /// Returns what the client does with frames that are not printed in time: it must go on reading.
    pub(super) fn overflow(arguments: &FeedArguments) -> Overflow {
        if arguments.lossless { Overflow::Block } else { Overflow::DropNewest }
    }

    /// Subscribes the client's frames. After a reconnection it adapts to a broker that has no options, or has
    /// them again.
    pub(super) async fn subscribe(&mut self, context: &Context, client: &Client) -> Result<(), Error> {
        if !self.as_given.is_empty() {
            client.add_filters(&self.as_given).await?;
        }
        if self.plain.is_empty() {
            return Ok(());
        }
        let filters = match self.mode {
            Mode::Lossless => return client.add_filters(&self.plain).await,
            Mode::Lossy => Options::lossy().of(&self.plain),
            Mode::Latest => Options::latest().of(&self.plain),
        };
        match client.add_filters(&filters).await {
            Err(Error::NotSupported { feature, .. }) => {
                if !self.falls_back {
                    context.output.notice(&format!(
                        "the broker does not know ${feature}: while this terminal is stopped, it can hold up \
                         publishers"
                    ));
                }
                self.falls_back = true;
                // this broker takes them for other topics
                client.remove_filters(&filters).await?;
                client.add_filters(&self.plain).await
            }
            Ok(()) if self.falls_back => {
                self.falls_back = false;
                client.remove_filters(&self.plain).await
            }
            added => added,
        }
    }
}
