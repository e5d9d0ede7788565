//! Tokens of every kind, good and bad, against the clock that a test sets.

use proptest::prelude::*;

use super::mint::sign;
use super::*;

const NOW: UnixMillis = UnixMillis(1_790_000_000_500);
const SECRET: &str = "a secret";

fn verifier() -> Verifier {
    Verifier::new(&Options { hmac_secret: Some(SECRET.into()), ..Options::default() })
}

fn token(claims: &str) -> String {
    sign(SECRET, Algorithm::Hs256, claims.as_bytes())
}

#[track_caller]
fn check_connection(claims: &str, expected: Result<Grant, Refused>) {
    assert_eq!(verifier().connection(&token(claims), NOW), expected, "{claims}");
}

fn user(name: &str) -> Grant {
    Grant { user: name.into(), ..Grant::default() }
}

#[test]
fn a_signed_token_grants_what_it_says() {
    check_connection(
        r#"{"sub":"42","exp":1790000100,"info":{"a":
 1},"channels":["b","a","b"],"meta":{"x":1},"jti":"1","iat":1}"#,
        Ok(Grant {
            user: "42".into(),
            expires_at: Some(1_790_000_100),
            info: (*br#"{"a": 1}"#).into(),
            channels: vec!["a".into(), "b".into()],
        }),
    );
    check_connection("{}", Ok(Grant::default()));
    check_connection(r#"{"sub":"1","info":null,"b64info":""}"#, Ok(user("1")));
    check_connection(
        r#"{"b64info":"eyJhIjoKMX0=","info":2}"#,
        Ok(Grant { info: (*br#"{"a":1}"#).into(), ..Grant::default() }),
    );
    check_connection(
        r#"{"subs":{"z":{"info":1},"y":{}},"channels":["a"]}"#,
        Ok(Grant { channels: vec!["y".into(), "z".into()], ..Grant::default() }),
    );
}

#[test]
fn a_token_is_good_until_the_second_it_expires() {
    check_connection(r#"{"exp":1790000000}"#, Err(Refused::Expired));
    check_connection(r#"{"exp":1790000001}"#, Ok(Grant { expires_at: Some(1_790_000_001), ..Grant::default() }));
    check_connection(r#"{"exp":1790000001.9}"#, Ok(Grant { expires_at: Some(1_790_000_001), ..Grant::default() }));
    check_connection(r#"{"exp":0}"#, Ok(Grant::default()));
    check_connection(r#"{"exp":-1}"#, Err(Refused::Expired));
    check_connection(r#"{"exp":1e300}"#, Ok(Grant { expires_at: Some(i64::MAX as u64), ..Grant::default() }));
    check_connection(r#"{"nbf":1790000001}"#, Err(Refused::Expired));
    check_connection(r#"{"nbf":1790000000}"#, Ok(Grant::default()));
}

#[test]
fn expire_at_moves_the_end_of_the_connection_but_not_of_the_token() {
    let until = |secs| Ok(Grant { expires_at: secs, ..Grant::default() });
    check_connection(r#"{"exp":1790000100,"expire_at":0}"#, until(None));
    check_connection(r#"{"exp":1790000100,"expire_at":1790009999}"#, until(Some(1_790_009_999)));
    check_connection(r#"{"exp":1,"expire_at":1790009999}"#, Err(Refused::Expired));
    check_connection(r#"{"expire_at":-5}"#, until(None));
}

#[test]
fn a_token_of_one_kind_does_not_pass_for_the_other() {
    check_connection(r#"{"sub":"1","channel":"a"}"#, Err(Refused::Invalid));
    check_connection(r#"{"sub":"1","channel":""}"#, Ok(user("1")));
    assert_eq!(verifier().subscription(&token(r#"{"sub":"1"}"#), NOW), Err(Refused::Invalid));
    assert_eq!(verifier().subscription(&token(r#"{"sub":"1","channel":""}"#), NOW), Err(Refused::Invalid));
    assert_eq!(
        verifier()
            .subscription(&token(r#"{"sub":"1","channel":"a","client":"c","info":1,"data":"x","expire_at":9}"#), NOW),
        Ok(SubscriptionGrant {
            channel: "a".into(),
            user: "1".into(),
            client: Some("c".into()),
            expires_at: Some(9),
            info: (*b"1").into(),
            data: (*br#""x""#).into(),
        })
    );
}

#[test]
fn what_is_not_signed_with_our_secret_is_invalid() {
    let other = sign("another secret", Algorithm::Hs256, b"{}");
    assert_eq!(verifier().connection(&other, NOW), Err(Refused::Invalid));
    // {"alg":"none"} . {} . nothing
    assert_eq!(verifier().connection("eyJhbGciOiJub25lIn0.e30.", NOW), Err(Refused::Invalid));
    // {"alg":"RS256"}, signed as if the secret were a public key
    let (_, rest) = token("{}").split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(verifier().connection(&format!("eyJhbGciOiJSUzI1NiJ9.{rest}"), NOW), Err(Refused::Invalid));
    for text in ["", ".", "..", "...", "a.b.c", "eyJhbGciOiJIUzI1NiJ9..", "\u{1F600}.\u{1F600}.\u{1F600}"] {
        assert_eq!(verifier().connection(text, NOW), Err(Refused::Invalid), "{text}");
    }
    for claims in ["", "[]", "1", r#"{"sub":1}"#, r#"{"exp":"soon"}"#, r#"{"b64info":"%"}"#, r#"{"b64info":"/w=="}"#] {
        check_connection(claims, Err(Refused::Invalid));
    }
    check_connection(r#"{"channels":["a",""]}"#, Err(Refused::Invalid));
}

#[test]
fn a_header_that_must_be_understood_is_refused() {
    let message = "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdfQ.e30"; // {"alg":"HS256","crit":["x"]}
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    assert_eq!(verifier().connection(&format!("{message}.{signature}"), NOW), Err(Refused::Invalid));
}

#[test]
fn a_token_beyond_the_bound_is_invalid_however_well_signed() {
    let fits = token(&format!(r#"{{"sub":"{}"}}"#, "u".repeat(12_000)));
    assert!(fits.len() <= TOKEN_BYTES_MAX);
    assert!(verifier().connection(&fits, NOW).is_ok());
    let over = token(&format!(r#"{{"sub":"{}"}}"#, "u".repeat(12_300)));
    assert!(over.len() > TOKEN_BYTES_MAX);
    assert_eq!(verifier().connection(&over, NOW), Err(Refused::Invalid));
}

#[test]
fn a_changed_secret_leaves_the_previous_one_good() {
    let options =
        Options { hmac_secret: Some("new".into()), hmac_previous_secret: Some("old".into()), ..Options::default() };
    let verifier = Verifier::new(&options);
    for secret in ["new", "old"] {
        for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
            assert!(verifier.connection(&sign(secret, algorithm, b"{}"), NOW).is_ok(), "{secret} {algorithm:?}");
        }
    }
    assert_eq!(verifier.connection(&sign("older", Algorithm::Hs256, b"{}"), NOW), Err(Refused::Invalid));
}

#[test]
fn without_a_secret_no_token_is_believed() {
    for options in [Options::default(), Options { hmac_secret: Some("".into()), ..Options::default() }] {
        let verifier = Verifier::new(&options);
        assert!(!verifier.configured());
        assert_eq!(verifier.connection(&sign("x", Algorithm::Hs256, b"{}"), NOW), Err(Refused::NotConfigured));
    }
}

#[test]
fn a_token_for_another_audience_or_from_another_issuer_is_invalid() {
    let options = Options {
        hmac_secret: Some(SECRET.into()),
        audience: Some("game".into()),
        issuer: Some("shop".into()),
        ..Options::default()
    };
    let verifier = Verifier::new(&options);
    let ask = |claims: &str| verifier.connection(&token(claims), NOW).map(|_| ());
    assert_eq!(ask(r#"{"aud":"game","iss":"shop"}"#), Ok(()));
    assert_eq!(ask(r#"{"aud":["chat","game"],"iss":"shop"}"#), Ok(()));
    for claims in [
        "{}",
        r#"{"aud":"chat","iss":"shop"}"#,
        r#"{"aud":[],"iss":"shop"}"#,
        r#"{"aud":"game"}"#,
        r#"{"aud":"game","iss":"mall"}"#,
        // Also when it is stale: another attempt would not help.
        r#"{"aud":"chat","iss":"shop","exp":1}"#,
    ] {
        assert_eq!(ask(claims), Err(Refused::Invalid), "{claims}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let options = Options { hmac_secret: Some("hush".into()), ..Options::default() };
    assert!(!format!("{options:?}").contains("hush"));
}

#[test]
fn what_is_minted_is_granted() {
    let claims = ConnectionClaims {
        user: "42".into(),
        expires_at: Some(1_790_000_100),
        channels: vec!["a".into()],
        ..ConnectionClaims::default()
    };
    let grant = verifier().connection(&mint_connection(SECRET, Algorithm::Hs512, &claims), NOW);
    let expected =
        Grant { user: "42".into(), expires_at: Some(1_790_000_100), info: Box::default(), channels: vec!["a".into()] };
    assert_eq!(grant, Ok(expected));
    let claims = SubscriptionClaims { channel: "a".into(), user: "42".into(), ..SubscriptionClaims::default() };
    let grant = verifier().subscription(&mint_subscription(SECRET, Algorithm::Hs256, &claims), NOW);
    assert_eq!(grant, Ok(SubscriptionGrant { channel: "a".into(), user: "42".into(), ..SubscriptionGrant::default() }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics_and_none_passes_unsigned(text in ".{0,200}", payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(verifier().connection(&text, NOW).is_err());
        // Signed garbage may only be refused, or be claims by accident.
        let _garbage = verifier().subscription(&sign(SECRET, Algorithm::Hs256, &payload), NOW);
    }

    #[test]
    fn a_token_with_one_byte_changed_is_refused(at in 0usize..1000, to in "[A-Za-z0-9_.-]") {
        let good = token(r#"{"sub":"42","exp":1790000100}"#);
        let at = at % good.len();
        let mut bad = good.clone();
        bad.replace_range(at..=at, &to);
        // The last character of a base64 part has unused bits: the signature is compared as text, so they count too.
        prop_assert_eq!(verifier().connection(&bad, NOW).is_ok(), bad == good);
    }
}
