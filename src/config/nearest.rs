//! Which known name a mistaken one may have meant.

/// The known name with the smallest distance, if it is near enough to be worth a question.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(NAME_MAX).collect();
    let distances = known.into_iter().map(|known| (distance(&name, known), known));
    let (distance, known) = distances.min_by_key(|&(distance, _)| distance)?;
    let near = distance <= 2.max(known.len() / 3) && distance < known.len();
    near.then_some(known)
}

/// No known name is longer than half of it.
const NAME_MAX: usize = 128;

/// How many characters to insert, remove, change, or swap with their neighbour. Letters count without their case, and
/// `-`, `.` and `_` as one, because these are what people confuse.
fn distance(name: &[char], known: &str) -> usize {
    let fold = |c: char| if matches!(c, '-' | '.') { '_' } else { c.to_ascii_lowercase() };
    let a: Vec<char> = name.iter().copied().map(fold).collect();
    let b: Vec<char> = known.chars().map(fold).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant_is_found() {
        let known = ["client.insecure", "client.channel_limit", "http_server.port", "log.level"];
        let ask = |name| nearest(name, known);
        assert_eq!(ask("client.insecur"), Some("client.insecure"));
        assert_eq!(ask("clinet.insecure"), Some("client.insecure"));
        assert_eq!(ask("Client-Channel-Limit"), Some("client.channel_limit"));
        assert_eq!(ask("http.port"), None);
        assert_eq!(ask("http_server_prot"), Some("http_server.port"));
        assert_eq!(ask("log.levle"), Some("log.level"));
        assert_eq!(ask("something else altogether"), None);
        assert_eq!(ask(""), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn a_swap_of_neighbours_is_one_step() {
        let of = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!(of("ab", "ba"), 1);
        assert_eq!(of("abc", "abc"), 0);
        assert_eq!(of("", "abc"), 3);
        assert_eq!(of("kitten", "sitting"), 3);
    }
}
