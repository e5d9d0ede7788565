//! A channel's name, taken apart: `$namespace:rest#user,user`. Only cutting, no opinion.

use super::Options;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name<'n> {
    pub(super) private: bool,
    /// Before the first boundary, without the private prefix.
    pub(super) namespace: Option<&'n str>,
    /// After the last user boundary.
    pub(super) users: Option<&'n str>,
}

impl<'n> Name<'n> {
    pub(super) fn split(name: &'n str, options: &Options) -> Self {
        let stripped = options.private_prefix.and_then(|prefix| name.strip_prefix(prefix));
        let namespace = options.namespace_boundary.and_then(|boundary| stripped.unwrap_or(name).split_once(boundary));
        let users = options.user_boundary.and_then(|boundary| name.rsplit_once(boundary));
        Name {
            private: stripped.is_some(),
            namespace: namespace.map(|(namespace, _)| namespace),
            users: users.map(|(_, users)| users),
        }
    }

    /// The anonymous user is on no list, although `a#` could be read as naming them.
    pub(super) fn lists(&self, user: &str, separator: Option<char>) -> bool {
        let Some(users) = self.users else { return false };
        !user.is_empty()
            && match separator {
                Some(separator) => users.split(separator).any(|listed| listed == user),
                None => users == user,
            }
    }
}
