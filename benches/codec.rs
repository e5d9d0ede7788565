//! The client protocol's hot path: a publish decoded, a publication encoded, in both encodings, at 128 bytes of payload and
//! at 4 KiB. And what stands beside it: a payload validated, a connect and subscribes decoded, a publish answered.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skein::client::schema;
use skein::protocol::batch::{decode, encode_push, encode_reply, separator};
use skein::protocol::{
    ClientInfo, Connect, DecodeLimits, Encoding, Method, Publication, Push, Reply, Subscribe, validate_json,
};

const LIMITS: DecodeLimits = DecodeLimits { json_depth_max: 32, commands_max: 64 };
const ENCODINGS: [(&str, Encoding); 2] = [("json", Encoding::Json), ("protobuf", Encoding::Protobuf)];
const CHANNEL: &str = "game:room-4711";

/// An object as games send them, about as long as asked.
fn payload(bytes: usize) -> Vec<u8> {
    let mut text = String::from(r#"{"kind":"move","player":"b7f3c2","at":[1024,-77,12.5]"#);
    let mut field = 0;
    while text.len() + 1 < bytes {
        text.push_str(&format!(r#","f{field}":"value {field}""#));
        field += 1;
    }
    text.push('}');
    text.into_bytes()
}

fn frame(encoding: Encoding, methods: &[Method<'_>]) -> Vec<u8> {
    let mut frame = Vec::new();
    for (at, method) in methods.iter().enumerate() {
        if at > 0 {
            frame.extend_from_slice(separator(encoding));
        }
        schema::encode_command(encoding, at as u32 + 1, method, &mut frame).expect("the payload is JSON");
    }
    frame
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let mut bench = |name: String, encoding, frame: Vec<u8>| {
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for command in decode(encoding, black_box(&frame), LIMITS) {
                    black_box(command.expect("the frame is valid"));
                }
            });
        });
    };
    for (name, encoding) in ENCODINGS {
        for bytes in [128, 4096] {
            let data = payload(bytes);
            let publish = Method::Publish { channel: CHANNEL.into(), data: data.into(), kind: 0 };
            bench(format!("publish {bytes} {name}"), encoding, frame(encoding, &[publish]));
        }
        let connect = Connect { name: "js".into(), version: "5.8.0".into(), ..Connect::default() };
        let mut methods = vec![Method::Connect(connect)];
        for channel in ["news", "chat:lobby", CHANNEL] {
            methods.push(Method::Subscribe(Subscribe { channel: channel.into(), flag: 1, ..Subscribe::default() }));
        }
        bench(format!("connect and 3 subscribes {name}"), encoding, frame(encoding, &methods));
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let info =
        ClientInfo { user: "4711", client: "7d1f5b9e-2f6a-4d8e-9a51-0c7f6f2b8a11", conn_info: b"", chan_info: b"" };
    for (name, encoding) in ENCODINGS {
        for bytes in [128, 4096] {
            let data = payload(bytes);
            for (of_whom, info) in [("", None), (" of a client", Some(info))] {
                let push = Push::Publication(Publication { data: &data, info, tags: &[], offset: 0 });
                let mut out = Vec::with_capacity(8192);
                group.bench_function(format!("publication {bytes}{of_whom} {name}"), |bencher| {
                    bencher.iter(|| {
                        out.clear();
                        encode_push(encoding, black_box(CHANNEL), black_box(&push), &mut out);
                        black_box(out.len())
                    });
                });
            }
        }
        let mut out = Vec::with_capacity(8192);
        group.bench_function(format!("publish reply {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_reply(encoding, black_box(4711), black_box(&Reply::Publish), &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn validating(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("validate");
    for bytes in [128, 4096] {
        let data = payload(bytes);
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(format!("payload {bytes}"), |bencher| {
            bencher.iter(|| validate_json(black_box(&data), LIMITS.json_depth_max).expect("the payload is JSON").len());
        });
    }
    group.finish();
}

criterion_group! {
    name = codec;
    config = Criterion::default().sample_size(30).measurement_time(std::time::Duration::from_secs(2)).warm_up_time(std::time::Duration::from_millis(500));
    targets = decoding, encoding, validating
}
criterion_main!(codec);
