//! Results and errors of the server API as the bytes of an HTTP answer.
//!
//! As in the reference an error is a success of HTTP, unless the caller asks for its error mode `transport`.

use serde::Serialize;

use super::ApiError;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    /// JSON; empty where the status says all.
    pub body: Vec<u8>,
}

/// Where a publication came to stand; zero and empty for a channel without history.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Published<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub epoch: &'a str,
}

/// A member of the cluster, as the answering node sees it. The first fields are the reference's, the rest is ours.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct NodeInfo<'a> {
    pub uid: &'a str,
    pub name: &'a str,
    pub version: &'a str,
    pub num_clients: u64,
    pub num_users: u64,
    pub num_subs: u64,
    pub num_channels: u64,
    /// Seconds.
    pub uptime: u64,
    pub workers: u16,
    /// The life of the node: higher is newer.
    pub generation: u64,
    /// Whether the answering node sends to it and waits for it.
    pub in_view: bool,
    /// What the node itself last told, so its figures are this old.
    pub age_millis: u64,
}

pub fn published(result: Published<'_>) -> Answer {
    ok(&Result { result })
}

/// One response for each channel of the broadcast, in order.
pub fn responses(results: &[std::result::Result<Published<'_>, ApiError>]) -> Answer {
    #[derive(Serialize)]
    struct Responses<'a> {
        responses: Vec<Response<'a>>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Response<'a> {
        Result(Result<Published<'a>>),
        Error(Failure),
    }
    let responses = results
        .iter()
        .map(|one| match one {
            Ok(result) => Response::Result(Result { result: *result }),
            Err(error) => Response::Error(failure(*error)),
        })
        .collect();
    ok(&Result { result: Responses { responses } })
}

pub fn info(nodes: &[NodeInfo<'_>]) -> Answer {
    #[derive(Serialize)]
    struct Nodes<'a> {
        nodes: &'a [NodeInfo<'a>],
    }
    ok(&Result { result: Nodes { nodes } })
}

/// `transport_errors`: the caller wants the error in the HTTP status too.
pub fn failed(error: ApiError, transport_errors: bool) -> Answer {
    let status = match error {
        ApiError::BadBody => 400,
        ApiError::UnknownMethod => 404,
        _ if transport_errors => status_of(error.code()),
        _ => 200,
    };
    Answer { status, body: json(&failure(error)) }
}

/// The reference's table, and 429 for the one code that it does not have there.
const fn status_of(code: u32) -> u16 {
    match code {
        101 => 401,
        103 => 403,
        102 | 104 => 404,
        107 | 108 => 400,
        111 => 429,
        112 => 416,
        113 => 409,
        _ => 500,
    }
}

#[derive(Serialize)]
struct Result<T> {
    result: T,
}

#[derive(Serialize)]
struct Failure {
    error: FailureBody,
}

#[derive(Serialize)]
struct FailureBody {
    code: u32,
    message: &'static str,
}

fn failure(error: ApiError) -> Failure {
    Failure { error: FailureBody { code: error.code(), message: error.message() } }
}

fn ok(result: &impl Serialize) -> Answer {
    Answer { status: 200, body: json(result) }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs of strings and integers always serialize")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Error;

    fn text(answer: &Answer) -> &str {
        std::str::from_utf8(&answer.body).unwrap()
    }

    #[test]
    fn results_are_wrapped_and_leave_zeroes_out() {
        assert_eq!(text(&published(Published::default())), r#"{"result":{}}"#);
        assert_eq!(text(&published(Published { offset: 7, epoch: "x" })), r#"{"result":{"offset":7,"epoch":"x"}}"#);
    }

    #[test]
    fn a_broadcast_answers_for_each_channel() {
        let answer = responses(&[Ok(Published::default()), Err(Error::UnknownChannel.into())]);
        let expected = r#"{"result":{"responses":[{"result":{}},{"error":{"code":102,"message":"unknown channel"}}]}}"#;
        assert_eq!(text(&answer), expected);
    }

    #[test]
    fn info_lists_nodes_with_the_fields_that_libraries_read() {
        let node = NodeInfo {
            uid: "a-1",
            name: "a",
            version: "0.1.0",
            num_clients: 1,
            num_users: 2,
            num_subs: 3,
            num_channels: 4,
            uptime: 5,
            workers: 2,
            generation: 9,
            in_view: true,
            age_millis: 0,
        };
        let answer = info(&[node]);
        let expected = concat!(
            r#"{"result":{"nodes":[{"uid":"a-1","name":"a","version":"0.1.0","num_clients":1,"num_users":2,"#,
            r#""num_subs":3,"num_channels":4,"uptime":5,"#
        );
        assert!(text(&answer).starts_with(expected), "{}", text(&answer));
    }

    #[test]
    fn errors_are_http_successes_unless_asked_otherwise() {
        let missing = ApiError::BadRequest("bad request: channel is missing");
        let expected = r#"{"error":{"code":107,"message":"bad request: channel is missing"}}"#;
        assert_eq!((failed(missing, false).status, text(&failed(missing, false))), (200, expected));
        assert_eq!(failed(missing, true).status, 400);
        for (error, status) in [
            (Error::Internal, 500),
            (Error::UnknownChannel, 404),
            (Error::MethodNotFound, 404),
            (Error::NotAvailable, 400),
            (Error::TooManyRequests, 429),
            (Error::UnrecoverablePosition, 416),
        ] {
            assert_eq!(failed(error.into(), true).status, status, "{error:?}");
            assert_eq!(failed(error.into(), false).status, 200);
        }
        assert_eq!(failed(ApiError::BadBody, false).status, 400);
        assert_eq!(failed(ApiError::UnknownMethod, false).status, 404);
    }
}
