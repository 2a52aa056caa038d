//! Any bytes at all as the library of a plugin: they are refused with a sentence, or have a whole record.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match elbus_broker::inspect(data) {
        Ok(record) => {
            let needed = [&record.name, &record.version, &record.api, &record.target, &record.entry];
            assert!(needed.iter().all(|value| !value.is_empty()), "{record:?}");
            assert_eq!(record.panic, "unwind");
        }
        Err(refusal) => assert!(!refusal.is_empty()),
    }
});
