//! What a publication costs between nodes before any packet: writing it into a frame, checking and reading it there.
//!
//! 32 publications of 256 bytes in a frame; criterion's element is one publication.

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skein::backplane::envelope::{self, Frame, PublicationRef, Splitter, Tags};
use skein::base::hash::ChannelHash;

const BATCH: usize = 32;

fn publications(data: &[u8]) -> Vec<PublicationRef<'_>> {
    (0..BATCH as u64)
        .map(|i| PublicationRef {
            hash: ChannelHash(i),
            origin_micros: 1_790_000_000_000_000 + i,
            channel: "game:room-12345",
            data,
            json: true,
            info: None,
            tags: Tags::NONE,
        })
        .collect()
}

fn read(frame: &[u8]) -> usize {
    let Ok((_, Frame::Publications(batch))) = envelope::decode(black_box(frame)) else { panic!("our own frame") };
    batch
        .iter()
        .map(|publication| publication.hash.0 as usize + publication.channel.len() + publication.data.len())
        .sum()
}

fn benches(c: &mut Criterion) {
    let data = vec![b'x'; 256];
    let batch = publications(&data);
    let mut group = c.benchmark_group("envelope 32 x 256 B");
    group.throughput(Throughput::Elements(BATCH as u64));

    let mut out = Vec::new();
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            envelope::encode_publications(0, 1, black_box(&batch), &mut out);
            out.len()
        });
    });
    out.clear();
    envelope::encode_publications(0, 1, &batch, &mut out);
    group.bench_function("decode", |b| b.iter(|| read(&out)));
    group.bench_function("encode, split, decode", |b| {
        let mut splitter = Splitter::default();
        b.iter(|| {
            out.clear();
            envelope::encode_publications(0, 1, black_box(&batch), &mut out);
            let mut sum = 0;
            splitter
                .feed(&out, |frame| {
                    sum += read(frame);
                    ControlFlow::Continue(())
                })
                .expect("our own frame");
            sum
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
