//! `skein token`: makes a token as a backend would, to try things out.

use clap::{Arg, ArgMatches, Command};
use serde_json::value::RawValue;

use super::exit::Failure;
use super::{options, terminal};
use crate::auth::{Algorithm, ConnectionClaims, SubscriptionClaims, mint_connection, mint_subscription};
use crate::config;

pub fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("token")
        .about("Make a token for a connection, or for one subscription")
        .after_help(
            "The secret is that of --secret, or else client.token.hmac_secret_key of the environment or the \
             configuration file.",
        )
        .arg(text("user", "USER", "The user's id; without one the token is for an anonymous user"))
        .arg(text("channel", "CHANNEL", "Make a subscription token, for this channel"))
        .arg(text("client", "ID", "Only this connection may use the subscription token").requires("channel"))
        .arg(text("ttl", "TIME", "How long it is good, as 90s, 15m or 24h; 0 is for ever").default_value("24h"))
        .arg(text("info", "JSON", "What others see of the user"))
        .arg(text("data", "JSON", "What the subscriber gets with its answer").requires("channel"))
        .arg(
            text("subscribe", "CHANNEL,...", "Channels that the connection is subscribed to from the start")
                .value_delimiter(',')
                .conflicts_with("channel"),
        )
        .arg(
            text("algorithm", "NAME", "How it is signed")
                .value_parser(["HS256", "HS384", "HS512"])
                .default_value("HS256"),
        )
        .arg(text("secret", "TEXT", "The secret that the nodes check it with"))
        .arg(options::file_arg())
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let token = mint(matches, terminal::unix_secs())?;
    terminal::print(&format!("{token}\n"))
}

fn mint(matches: &ArgMatches, now: u64) -> Result<String, Failure> {
    let signer = signer(matches)?;
    let text = |name| matches.get_one::<String>(name).cloned();
    let json = |name: &'static str| match text(name).map(RawValue::from_string) {
        Some(Err(error)) => Err(Failure::usage(format!("--{name} must be JSON: {error}"))),
        Some(Ok(value)) => Ok(Some(value)),
        None => Ok(None),
    };
    let ttl = text("ttl").unwrap_or_default();
    let ttl = config::parse_time(&ttl)
        .ok_or_else(|| Failure::usage(format!("--ttl must be a time with its unit, as 24h, and '{ttl}' is none")))?;
    let expires_at = (!ttl.is_zero()).then(|| now.saturating_add(ttl.as_secs()));
    let user = text("user").unwrap_or_default();
    let algorithm = match text("algorithm").as_deref() {
        Some("HS384") => Algorithm::Hs384,
        Some("HS512") => Algorithm::Hs512,
        _ => Algorithm::Hs256,
    };
    let Signer { secret, audience, issuer } = signer;
    Ok(match text("channel") {
        Some(channel) => {
            let (client, info, data) = (text("client"), json("info")?, json("data")?);
            let claims = SubscriptionClaims { channel, user, client, expires_at, info, data, audience, issuer };
            mint_subscription(&secret, algorithm, &claims)
        }
        None => {
            let channels = matches.get_many::<String>("subscribe").unwrap_or_default().cloned().collect();
            let claims = ConnectionClaims { user, expires_at, info: json("info")?, channels, audience, issuer };
            mint_connection(&secret, algorithm, &claims)
        }
    })
}

struct Signer {
    secret: String,
    audience: Option<String>,
    issuer: Option<String>,
}

fn signer(matches: &ArgMatches) -> Result<Signer, Failure> {
    if let Some(secret) = matches.get_one::<String>("secret").filter(|secret| !secret.is_empty()) {
        return Ok(Signer { secret: secret.clone(), audience: None, issuer: None });
    }
    let auth = options::settings(matches)?.auth;
    let secret = auth.hmac_secret.ok_or_else(|| {
        Failure::usage(
            "there is no secret to sign with: give --secret, or --config with a file that has client.token.hmac_secret_key",
        )
    })?;
    Ok(Signer { secret: secret.into(), audience: auth.audience.map(Into::into), issuer: auth.issuer.map(Into::into) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Options, Verifier};
    use crate::base::time::UnixMillis;

    const NOW: u64 = 1_790_000_000;

    fn made(args: &[&str]) -> Result<String, Failure> {
        let args = ["token"].iter().chain(args);
        let matches = command().try_get_matches_from(args).map_err(Failure::usage)?;
        mint(&matches, NOW)
    }

    fn verifier() -> Verifier {
        Verifier::new(&Options { hmac_secret: Some("s".into()), ..Options::default() })
    }

    #[test]
    fn a_made_token_is_believed_until_its_time_is_over() {
        let token =
            made(&["--secret", "s", "--user", "42", "--ttl", "1h30m", "--subscribe", "a,b", "--info", "{\"n\":1}"]);
        let grant = verifier().connection(&token.unwrap(), UnixMillis(NOW * 1000)).unwrap();
        assert_eq!(&*grant.user, "42");
        assert_eq!(grant.expires_at, Some(NOW + 5400));
        assert_eq!(grant.channels, ["a".into(), "b".into()]);
        assert_eq!(&*grant.info, b"{\"n\":1}");
        let token = made(&["--secret", "s", "--user", "42", "--ttl", "0"]).unwrap();
        assert_eq!(verifier().connection(&token, UnixMillis(NOW * 1000)).unwrap().expires_at, None);
    }

    #[test]
    fn with_a_channel_it_is_a_subscription_token() {
        let token =
            made(&["--secret", "s", "--user", "42", "--channel", "$a", "--algorithm", "HS512", "--client", "c"]);
        let grant = verifier().subscription(&token.unwrap(), UnixMillis(NOW * 1000)).unwrap();
        assert_eq!((&*grant.channel, &*grant.user, grant.client.as_deref()), ("$a", "42", Some("c")));
        assert_eq!(grant.expires_at, Some(NOW + 86_400));
    }

    #[test]
    fn what_cannot_be_a_token_is_said() {
        for (args, told) in [
            (&["--secret", "s", "--ttl", "5"][..], "--ttl must be a time"),
            (&["--secret", "s", "--info", "{"], "--info must be JSON"),
            (&["--secret", "s", "--algorithm", "none"], "invalid value 'none'"),
            (&["--config", "/nonexistent"], "no such file"),
            (&["--secret", "s", "--client", "c"], "--channel"),
        ] {
            let failure = made(args).expect_err(told);
            assert!(failure.message.contains(told), "{}", failure.message);
        }
    }
}
