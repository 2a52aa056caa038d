//! Any bytes as a plugin library are refused with a message, or have a complete manifest.
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
