//! The wire format: grouping requests into runs, encoding runs of deliveries. 128 messages of 100 bytes each.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use elbus_protocol::{
    FrameKind, Limits, Op, Qos,
    delivery::{DeliveryHead, RUN_SLACK, encode_run},
    request::{RunBuffer, Step, encode_request, next_run},
};
use std::hint::black_box;

const MESSAGES: usize = 128;

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("next_run");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, targets) in [("one target", 1), ("two targets alternately", 2)] {
        let mut input = Vec::new();
        for n in 0..MESSAGES {
            let target = ["b.c", "b.d"][n % targets];
            encode_request(&mut input, n as u32, Op::Message, Qos::NO, target, "", &[0; 100])
                .unwrap_or_default();
        }
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut run = RunBuffer::<&[u8]>::new();
                let mut position = 0;
                while let Ok(Step::Run(head)) = next_run(&input, &mut position, &Limits::default(), &mut run)
                {
                    black_box(head.len);
                }
            });
        });
    }
}

fn deliveries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_run");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let payload = [0; 100];
    for (name, sender) in [("short sender", "a.b"), ("sender of 60 bytes", &"n".repeat(60))] {
        let head = DeliveryHead { kind: FrameKind::Message, realtime: false, sender, topic: "" };
        let mut out = vec![0; head.encoded_len(MESSAGES * payload.len(), MESSAGES) + RUN_SLACK];
        group.bench_function(name, |bencher| {
            bencher.iter(|| encode_run(&mut out, &head, std::iter::repeat_n(&payload[..], MESSAGES)));
        });
    }
}

criterion_group!(codec, requests, deliveries);
criterion_main!(codec);
