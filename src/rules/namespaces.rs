//! The options of one namespace, by the reference's names where the meaning is the same. All are off by default: what
//! nobody allowed is denied.

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Namespace {
    /// Any client with a user's name may subscribe.
    pub allow_subscribe_for_client: bool,
    /// With it, `allow_subscribe_for_client` covers the anonymous user, too.
    pub allow_subscribe_for_anonymous: bool,
    /// Any client with a user's name may publish.
    pub allow_publish_for_client: bool,
    /// A client with a user's name may publish where it is subscribed.
    pub allow_publish_for_subscriber: bool,
    /// With it, the two above cover the anonymous user, too.
    pub allow_publish_for_anonymous: bool,
    /// A list of users at the end of a name (`dialog#1,2`) opens the channel to these users, and to no others.
    pub allow_user_limited_channels: bool,
    pub class: Class,
    /// Where publications were lost on the way, clients are told: unsubscribe 2500.
    pub tell_gap: bool,
}

/// What is promised about the delivery of a publication.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Class {
    #[default]
    Ephemeral,
    History,
    Durable,
    Queue,
}

impl Class {
    pub const ALL: [Class; 4] = [Class::Ephemeral, Class::History, Class::Durable, Class::Queue];

    pub const fn name(self) -> &'static str {
        match self {
            Class::Ephemeral => "ephemeral",
            Class::History => "history",
            Class::Durable => "durable",
            Class::Queue => "queue",
        }
    }

    /// Whether this release keeps the promise. A configuration that asks for another class is refused.
    pub const fn built(self) -> bool {
        matches!(self, Class::Ephemeral)
    }
}

/// Letters, digits, `-`, `_` and `.`, at least two: the reference's own rule, so that a configuration can move.
pub fn valid_namespace_name(name: &str) -> bool {
    name.len() >= 2 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
