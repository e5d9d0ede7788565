//! From a channel's name to what may be done with it.
//!
//! `name` takes a name apart (`$namespace:rest#user,user`), `namespaces` has the options of each namespace, and here
//! stands who may subscribe and who may publish. A token is verified before it comes here, by `auth`; what a refusal
//! becomes on the wire is the session's matter.
//!
//! Always true: a name whose namespace is not configured has no options, so nothing at all is allowed on it, in
//! insecure mode neither.

mod name;
mod namespaces;

use crate::auth::SubscriptionGrant;
use name::Name;

pub use namespaces::{Class, Namespace, valid_namespace_name};

/// Every option that decides about channels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// For names without a namespace.
    pub without_namespace: Namespace,
    /// Name and options of each; of two with one name the first counts.
    pub namespaces: Vec<(Box<str>, Namespace)>,
    pub channel_name_bytes_max: usize,
    /// Begins a name that needs a subscription token. `None` turns the meaning off, likewise below.
    pub private_prefix: Option<char>,
    /// Ends the namespace.
    pub namespace_boundary: Option<char>,
    /// Begins the list of users.
    pub user_boundary: Option<char>,
    /// Between two users of the list.
    pub user_separator: Option<char>,
    /// Everything is allowed that needs no token and whose namespace exists.
    pub insecure: bool,
    pub allow_anonymous_connect_without_token: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            without_namespace: Namespace::default(),
            namespaces: Vec::new(),
            channel_name_bytes_max: 255,
            private_prefix: Some('$'),
            namespace_boundary: Some(':'),
            user_boundary: Some('#'),
            user_separator: Some(','),
            insecure: false,
            allow_anonymous_connect_without_token: false,
        }
    }
}

impl Options {
    /// For the demo and a node without configuration: any channel without a namespace, anybody.
    pub fn open() -> Self {
        Options { insecure: true, ..Options::default() }
    }
}

/// Why a text is no channel's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NameError {
    /// Error 107.
    Empty,
    /// Error 107.
    TooLong,
    /// Error 107.
    NotAscii,
    /// Error 102.
    UnknownNamespace,
}

/// Why somebody may not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    Name(NameError),
    /// Error 103.
    Denied,
    /// The token is genuine but for another channel, user or connection: close 3500.
    WrongToken,
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Refusal::Name(error)
    }
}

/// What is known of one channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelRule<'r> {
    pub options: &'r Namespace,
    /// Needs a subscription token, always.
    pub private: bool,
    /// The name ends in a list of users and the namespace heeds it.
    pub user_limited: bool,
}

pub struct Rules {
    options: Options,
}

impl Rules {
    pub fn new(mut options: Options) -> Self {
        // Stable, so that of two with one name the first stays; sorted, to be searched.
        options.namespaces.sort_by(|(a, _), (b, _)| a.cmp(b));
        options.namespaces.dedup_by(|(later, _), (earlier, _)| later == earlier);
        Rules { options }
    }

    /// A client that shows no token may connect, as the anonymous user.
    pub fn may_connect_without_token(&self) -> bool {
        self.options.insecure || self.options.allow_anonymous_connect_without_token
    }

    pub fn insecure(&self) -> bool {
        self.options.insecure
    }

    pub fn channel(&self, name: &str) -> Result<ChannelRule<'_>, NameError> {
        self.split(name).map(|(_, rule)| rule)
    }

    /// The order is the reference's: a private name needs a token, a token wins over everything, then the list of
    /// users, then the namespace's options, then insecure mode.
    pub fn may_subscribe(
        &self,
        name: &str,
        user: &str,
        grant: Option<&SubscriptionGrant>,
        client_id: &str,
    ) -> Result<(), Refusal> {
        let (parts, rule) = self.split(name)?;
        if let Some(grant) = grant {
            let fits = *grant.channel == *name
                && *grant.user == *user
                && grant.client.as_deref().is_none_or(|client| client == client_id);
            return if fits { Ok(()) } else { Err(Refusal::WrongToken) };
        }
        if rule.private {
            return Err(Refusal::Denied);
        }
        let allowed = match rule.user_limited {
            true => parts.lists(user, self.options.user_separator),
            false => {
                rule.options.allow_subscribe_for_client
                    && (!user.is_empty() || rule.options.allow_subscribe_for_anonymous)
            }
        };
        if allowed || self.options.insecure { Ok(()) } else { Err(Refusal::Denied) }
    }

    /// `subscribed`: the publisher has a subscription of this channel.
    pub fn may_publish(&self, name: &str, user: &str, subscribed: bool) -> Result<(), Refusal> {
        let options = self.channel(name)?.options;
        let somebody = !user.is_empty() || options.allow_publish_for_anonymous;
        let role = options.allow_publish_for_client || (options.allow_publish_for_subscriber && subscribed);
        if (somebody && role) || self.options.insecure { Ok(()) } else { Err(Refusal::Denied) }
    }

    fn split<'n>(&self, name: &'n str) -> Result<(Name<'n>, ChannelRule<'_>), NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > self.options.channel_name_bytes_max {
            return Err(NameError::TooLong);
        }
        if !name.is_ascii() {
            return Err(NameError::NotAscii);
        }
        let parts = Name::split(name, &self.options);
        let options = match parts.namespace {
            // As in the reference, ":a" has no namespace, too.
            None | Some("") => &self.options.without_namespace,
            Some(namespace) => self.namespace(namespace).ok_or(NameError::UnknownNamespace)?,
        };
        let user_limited = options.allow_user_limited_channels && parts.users.is_some();
        Ok((parts, ChannelRule { options, private: parts.private, user_limited }))
    }

    fn namespace(&self, name: &str) -> Option<&Namespace> {
        let at = self.options.namespaces.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        Some(&self.options.namespaces[at].1)
    }
}

#[cfg(test)]
mod tests;
