//! Error codes of replies, close codes of connections, codes of unsubscribe pushes.

use std::time::Duration;

/// The `error` of a reply. Codes below 400 belong to the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Error {
    Internal,
    Unauthorized,
    UnknownChannel,
    PermissionDenied,
    MethodNotFound,
    AlreadySubscribed,
    LimitExceeded,
    BadRequest,
    NotAvailable,
    TokenExpired,
    Expired,
    TooManyRequests,
    UnrecoverablePosition,
}

impl Error {
    pub const fn code(self) -> u32 {
        match self {
            Error::Internal => 100,
            Error::Unauthorized => 101,
            Error::UnknownChannel => 102,
            Error::PermissionDenied => 103,
            Error::MethodNotFound => 104,
            Error::AlreadySubscribed => 105,
            Error::LimitExceeded => 106,
            Error::BadRequest => 107,
            Error::NotAvailable => 108,
            Error::TokenExpired => 109,
            Error::Expired => 110,
            Error::TooManyRequests => 111,
            Error::UnrecoverablePosition => 112,
        }
    }

    pub const fn message(self) -> &'static str {
        match self {
            Error::Internal => "internal server error",
            Error::Unauthorized => "unauthorized",
            Error::UnknownChannel => "unknown channel",
            Error::PermissionDenied => "permission denied",
            Error::MethodNotFound => "method not found",
            Error::AlreadySubscribed => "already subscribed",
            Error::LimitExceeded => "limit exceeded",
            Error::BadRequest => "bad request",
            Error::NotAvailable => "not available",
            Error::TokenExpired => "token expired",
            Error::Expired => "expired",
            Error::TooManyRequests => "too many requests",
            Error::UnrecoverablePosition => "unrecoverable position",
        }
    }

    /// The client may try the same again.
    pub const fn temporary(self) -> bool {
        matches!(self, Error::Internal | Error::TooManyRequests)
    }
}

/// Why a connection is ended by us: the code and text of its close frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Disconnect {
    /// The client closed: no frame is sent.
    ConnectionClosed,
    Shutdown,
    InternalError,
    ConnectionExpired,
    SubscriptionExpired,
    Slow,
    WriteError,
    InsufficientState,
    ForceReconnect,
    NoPong,
    TooManyRequests,
    InvalidToken,
    BadRequest,
    Stale,
    ForceDisconnect,
    ConnectionLimit,
    ChannelLimit,
    InappropriateProtocol,
    PermissionDenied,
    NotAvailable,
    TooManyErrors,
}

impl Disconnect {
    pub const ALL: [Disconnect; 21] = [
        Disconnect::ConnectionClosed,
        Disconnect::Shutdown,
        Disconnect::InternalError,
        Disconnect::ConnectionExpired,
        Disconnect::SubscriptionExpired,
        Disconnect::Slow,
        Disconnect::WriteError,
        Disconnect::InsufficientState,
        Disconnect::ForceReconnect,
        Disconnect::NoPong,
        Disconnect::TooManyRequests,
        Disconnect::InvalidToken,
        Disconnect::BadRequest,
        Disconnect::Stale,
        Disconnect::ForceDisconnect,
        Disconnect::ConnectionLimit,
        Disconnect::ChannelLimit,
        Disconnect::InappropriateProtocol,
        Disconnect::PermissionDenied,
        Disconnect::NotAvailable,
        Disconnect::TooManyErrors,
    ];

    pub const fn code(self) -> u16 {
        match self {
            Disconnect::ConnectionClosed => 3000,
            Disconnect::Shutdown => 3001,
            Disconnect::InternalError => 3004,
            Disconnect::ConnectionExpired => 3005,
            Disconnect::SubscriptionExpired => 3006,
            Disconnect::Slow => 3008,
            Disconnect::WriteError => 3009,
            Disconnect::InsufficientState => 3010,
            Disconnect::ForceReconnect => 3011,
            Disconnect::NoPong => 3012,
            Disconnect::TooManyRequests => 3013,
            Disconnect::InvalidToken => 3500,
            Disconnect::BadRequest => 3501,
            Disconnect::Stale => 3502,
            Disconnect::ForceDisconnect => 3503,
            Disconnect::ConnectionLimit => 3504,
            Disconnect::ChannelLimit => 3505,
            Disconnect::InappropriateProtocol => 3506,
            Disconnect::PermissionDenied => 3507,
            Disconnect::NotAvailable => 3508,
            Disconnect::TooManyErrors => 3509,
        }
    }

    pub const fn reason(self) -> &'static str {
        match self {
            Disconnect::ConnectionClosed => "connection closed",
            Disconnect::Shutdown => "shutdown",
            Disconnect::InternalError => "internal server error",
            Disconnect::ConnectionExpired => "connection expired",
            Disconnect::SubscriptionExpired => "subscription expired",
            Disconnect::Slow => "slow",
            Disconnect::WriteError => "write error",
            Disconnect::InsufficientState => "insufficient state",
            Disconnect::ForceReconnect => "force reconnect",
            Disconnect::NoPong => "no pong",
            Disconnect::TooManyRequests => "too many requests",
            Disconnect::InvalidToken => "invalid token",
            Disconnect::BadRequest => "bad request",
            Disconnect::Stale => "stale",
            Disconnect::ForceDisconnect => "force disconnect",
            Disconnect::ConnectionLimit => "connection limit",
            Disconnect::ChannelLimit => "channel limit",
            Disconnect::InappropriateProtocol => "inappropriate protocol",
            Disconnect::PermissionDenied => "permission denied",
            Disconnect::NotAvailable => "not available",
            Disconnect::TooManyErrors => "too many errors",
        }
    }

    /// Codes 3500 and above tell the client not to come back.
    pub const fn terminal(self) -> bool {
        self.code() >= 3500
    }
}

/// Why a client lost one subscription. 2500 and above ask it to subscribe again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnsubscribeCode {
    Server,
    InsufficientState,
    Expired,
    StateInvalidated,
}

impl UnsubscribeCode {
    pub const fn code(self) -> u32 {
        match self {
            UnsubscribeCode::Server => 2000,
            UnsubscribeCode::InsufficientState => 2500,
            UnsubscribeCode::Expired => 2501,
            UnsubscribeCode::StateInvalidated => 2502,
        }
    }

    pub const fn reason(self) -> &'static str {
        match self {
            UnsubscribeCode::Server => "server unsubscribe",
            UnsubscribeCode::InsufficientState => "insufficient state",
            UnsubscribeCode::Expired => "subscription expired",
            UnsubscribeCode::StateInvalidated => "state invalidated",
        }
    }
}

/// How long a client has after its token's expiry to bring a new one.
pub const EXPIRY_GRACE: Duration = Duration::from_secs(25);
