//! Who may subscribe and publish, rule by rule, in the order of precedence.

use proptest::prelude::*;

use super::*;

/// `open` lets clients do everything, `chat` heeds lists of users, `shut` and no namespace allow nothing.
fn rules(insecure: bool) -> Rules {
    let open = Namespace {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        ..Namespace::default()
    };
    let named =
        Namespace { allow_subscribe_for_client: true, allow_publish_for_subscriber: true, ..Namespace::default() };
    let chat =
        Namespace { allow_user_limited_channels: true, allow_subscribe_for_client: true, ..Namespace::default() };
    let namespaces = [("open", open), ("named", named), ("chat", chat), ("shut", Namespace::default())];
    Rules::new(Options {
        namespaces: namespaces.into_iter().map(|(name, options)| (name.into(), options)).collect(),
        insecure,
        ..Options::default()
    })
}

fn grant(channel: &str, user: &str, client: Option<&str>) -> SubscriptionGrant {
    let client = client.map(Into::into);
    SubscriptionGrant { channel: channel.into(), user: user.into(), client, ..SubscriptionGrant::default() }
}

#[track_caller]
fn check_subscribe(name: &str, user: &str, expected: Result<(), Refusal>) {
    assert_eq!(rules(false).may_subscribe(name, user, None, "c1"), expected, "{name} by '{user}'");
}

#[test]
fn a_name_that_is_none_or_of_an_unknown_namespace_is_refused_even_in_insecure_mode() {
    let long = "x".repeat(256);
    let errors = [
        ("", NameError::Empty),
        (&*long, NameError::TooLong),
        ("caf\u{e9}", NameError::NotAscii),
        ("nowhere:a", NameError::UnknownNamespace),
        ("$nowhere:a", NameError::UnknownNamespace),
        ("nowhere:", NameError::UnknownNamespace),
        (" open:a", NameError::UnknownNamespace),
        ("$$open:a", NameError::UnknownNamespace),
    ];
    for (name, error) in errors {
        for rules in [rules(false), rules(true)] {
            assert_eq!(rules.channel(name), Err(error), "{name}");
            assert_eq!(rules.may_subscribe(name, "1", None, "c1"), Err(Refusal::Name(error)));
            assert_eq!(rules.may_subscribe(name, "1", Some(&grant(name, "1", None)), "c1"), Err(Refusal::Name(error)));
            assert_eq!(rules.may_publish(name, "1", true), Err(Refusal::Name(error)));
        }
    }
    assert!(rules(false).channel(&"x".repeat(255)).is_ok());
}

#[test]
fn the_first_boundary_ends_the_namespace() {
    let rules = rules(false);
    for name in ["open:a", "open:a:b", "open:", "$open:a"] {
        assert!(rules.channel(name).unwrap().options.allow_publish_for_client, "{name}");
    }
    for name in ["open", ":a", "$:a"] {
        assert!(!rules.channel(name).unwrap().options.allow_publish_for_client, "{name}");
    }
    assert_eq!(rules.channel("a#open:"), Err(NameError::UnknownNamespace));
    assert!(rules.channel("$open:a").unwrap().private);
    assert!(!rules.channel("open:$a").unwrap().private);
}

#[test]
fn what_nobody_allowed_is_denied() {
    for name in ["a", "shut:a"] {
        check_subscribe(name, "1", Err(Refusal::Denied));
        check_subscribe(name, "", Err(Refusal::Denied));
        assert_eq!(rules(false).may_publish(name, "1", true), Err(Refusal::Denied));
    }
}

#[test]
fn the_anonymous_user_needs_a_permission_of_its_own() {
    check_subscribe("named:a", "1", Ok(()));
    check_subscribe("named:a", "", Err(Refusal::Denied));
    check_subscribe("open:a", "", Ok(()));
    let rules = rules(false);
    assert_eq!(rules.may_publish("open:a", "", false), Ok(()));
    assert_eq!(rules.may_publish("named:a", "", true), Err(Refusal::Denied));
}

#[test]
fn who_may_publish_as_a_subscriber_must_be_one() {
    let rules = rules(false);
    assert_eq!(rules.may_publish("named:a", "1", true), Ok(()));
    assert_eq!(rules.may_publish("named:a", "1", false), Err(Refusal::Denied));
}

#[test]
fn a_private_channel_needs_a_token_in_every_mode() {
    let name = "$open:a";
    for rules in [rules(false), rules(true)] {
        assert_eq!(rules.may_subscribe(name, "1", None, "c1"), Err(Refusal::Denied));
        assert_eq!(rules.may_subscribe(name, "1", Some(&grant(name, "1", None)), "c1"), Ok(()));
    }
}

#[test]
fn a_token_wins_over_everything_but_only_for_its_own_channel_user_and_client() {
    for rules in [rules(false), rules(true)] {
        let ask = |grant| rules.may_subscribe("shut:a", "1", Some(&grant), "c1");
        assert_eq!(ask(grant("shut:a", "1", None)), Ok(()));
        assert_eq!(ask(grant("shut:a", "1", Some("c1"))), Ok(()));
        assert_eq!(ask(grant("shut:b", "1", None)), Err(Refusal::WrongToken));
        assert_eq!(ask(grant("shut:a", "2", None)), Err(Refusal::WrongToken));
        assert_eq!(ask(grant("shut:a", "", None)), Err(Refusal::WrongToken));
        assert_eq!(ask(grant("shut:a", "1", Some("c2"))), Err(Refusal::WrongToken));
    }
}

#[test]
fn a_list_of_users_opens_a_channel_to_them_and_shuts_it_to_others() {
    check_subscribe("chat:d#1,2", "1", Ok(()));
    check_subscribe("chat:d#1,2", "2", Ok(()));
    check_subscribe("chat:d#1,2", "12", Err(Refusal::Denied));
    check_subscribe("chat:d#1,2", "1,2", Err(Refusal::Denied));
    check_subscribe("chat:d#1#2", "1", Err(Refusal::Denied));
    check_subscribe("chat:d#1#2", "2", Ok(()));
    check_subscribe("chat:d#", "", Err(Refusal::Denied));
    check_subscribe("chat:d#,", "", Err(Refusal::Denied));
    // Without a list the namespace's other options count.
    check_subscribe("chat:d", "3", Ok(()));
    // Where lists are not heeded they are only text.
    check_subscribe("named:d#1", "3", Ok(()));
    // A token opens it to somebody who is not listed.
    let name = "chat:d#1";
    assert_eq!(rules(false).may_subscribe(name, "3", Some(&grant(name, "3", None)), "c1"), Ok(()));
    assert_eq!(rules(true).may_subscribe(name, "3", None, "c1"), Ok(()));
}

#[test]
fn separators_can_be_changed_and_turned_off() {
    let users = Namespace { allow_user_limited_channels: true, ..Namespace::default() };
    let rules = Rules::new(Options {
        without_namespace: users.clone(),
        namespaces: vec![("open".into(), users)],
        private_prefix: None,
        namespace_boundary: Some('/'),
        user_boundary: Some('@'),
        user_separator: None,
        ..Options::default()
    });
    assert!(!rules.channel("$open/a").is_ok_and(|rule| rule.private));
    assert!(rules.channel("$a:b").is_ok());
    assert_eq!(rules.may_subscribe("open/a@1,2", "1,2", None, "c1"), Ok(()));
    assert_eq!(rules.may_subscribe("open/a@1,2", "1", None, "c1"), Err(Refusal::Denied));
}

#[test]
fn a_client_without_a_token_connects_only_where_anonymous_users_may() {
    assert!(!rules(false).may_connect_without_token());
    assert!(rules(true).may_connect_without_token());
    let options = Options { allow_anonymous_connect_without_token: true, ..Options::default() };
    assert!(Rules::new(options).may_connect_without_token());
}

#[test]
fn a_namespace_has_a_name_that_cannot_be_mistaken() {
    for name in ["ab", "a-b_c.9", "AB"] {
        assert!(valid_namespace_name(name), "{name}");
    }
    for name in ["", "a", "a:b", "a b", "\u{e9}\u{e9}", "a#", "$a"] {
        assert!(!valid_namespace_name(name), "{name}");
    }
}

proptest! {
    #[test]
    fn insecure_mode_never_takes_a_permission_away(name in "[$]?(open|named|chat|shut|x)?:?[a-c#,12]{0,6}", user in "[12]?", subscribed: bool) {
        let (secure, insecure) = (rules(false), rules(true));
        if secure.may_subscribe(&name, &user, None, "c1").is_ok() {
            prop_assert!(insecure.may_subscribe(&name, &user, None, "c1").is_ok());
        }
        if secure.may_publish(&name, &user, subscribed).is_ok() {
            prop_assert!(insecure.may_publish(&name, &user, subscribed).is_ok());
        }
    }

    #[test]
    fn no_name_panics(name in ".{0,40}", user in ".{0,4}") {
        let rules = rules(false);
        let known = rules.channel(&name).is_ok();
        prop_assert!(known || rules.may_subscribe(&name, &user, None, "c1").is_err());
    }
}
