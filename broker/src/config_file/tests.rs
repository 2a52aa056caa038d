//! Tests of reading `broker.toml`: the errors, their locations, and the declarations.

use super::*;

fn error(text: &str) -> String {
    ConfigFile::parse(Path::new("dir/broker.toml"), text.to_owned(), &[]).err().unwrap().to_string()
}

#[test]
fn errors_name_the_line_the_key_and_the_value() {
    for (text, expected) in [
        ("[broker]\nname = ", "dir/broker.toml:2: "),
        (
            "[broker]\nname = 5",
            "dir/broker.toml:2: [broker]: name = 5: expected a string, found integer 5; write it in quotes",
        ),
        ("[broker]\n\nnames = 'x'", "dir/broker.toml:3: [broker]: names = 'x': unknown key; known are "),
        ("[broker]\nname = ''", "dir/broker.toml:2: [broker]: name = '': must not be empty"),
        ("\n[brocker]", "dir/broker.toml:2: brocker: unknown key; known are [broker] and [[plugin]]"),
        ("\n\"\" = 1", "dir/broker.toml:2: \"\": unknown key; known are [broker] and [[plugin]]"),
        ("\n\"a.b[\" = 1", "dir/broker.toml:2: a.b[: unknown key; known are [broker] and [[plugin]]"),
        ("\"a\\nb\" = 1", "dir/broker.toml:1: a\\nb: unknown key; known are [broker] and [[plugin]]"),
        ("plugin = 5", "dir/broker.toml:1: plugin = 5: must be a list of tables: write [[plugin]]"),
        ("[[plugin]]\nlibrary = 'x'", "dir/broker.toml:1: plugin \"?\": missing key `name`"),
        ("[[plugin]]\nname = 'x'", "dir/broker.toml:1: plugin \"x\": missing key `library`"),
        (
            "[[plugin]]\nname = 'x'\nlibrary = 'y'\n[[plugin]]\nname = 'x'\nlibrary = 'y'",
            "dir/broker.toml:5: plugin \"x\": name = 'x': another plugin already has this name",
        ),
        (
            "[[plugin]]\nname = 'x'\nbuiltin = 'y'",
            "dir/broker.toml:3: plugin \"x\": builtin = 'y': no such plugin is linked in",
        ),
        (
            "[[plugin]]\nname = 'x'\nlibary = 'y'",
            "dir/broker.toml:3: plugin \"x\": libary = 'y': unknown key; known are builtin, config, library, \
             name, on_failure, priority, restart",
        ),
    ] {
        let error = error(text);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn all_errors_are_reported_and_their_length_is_bounded() {
    let all = |text: &str| {
        let (file, errors) = parse::parse_all::<NoSettings>(Path::new("b.toml"), text.to_owned(), &[]);
        (file.is_some(), errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (read, errors) =
        all("x = 1\n[broker]\nname = 5\nmax_filters = 0\nqueue = 1\n[[plugin]]\nname = 'a'\n\
         library = 7\nlibary = 'b'\n[[plugin]]\nname = 'b'\nlibrary = 'elbus_rpc'\n[y]\n");
    assert!(read, "the rest of it can be checked");
    let expected = [
        "b.toml:1: x: unknown key",
        "b.toml:13: y: unknown key",
        "b.toml:3: [broker]: name = 5: expected a string",
        "b.toml:5: [broker]: queue = 1: unknown key",
        "b.toml:4: [broker]: max_filters = 0: 0 is not at least 1",
        "b.toml:8: plugin \"a\": library = 7: expected a string",
        "b.toml:9: plugin \"a\": libary = 'b': unknown key",
    ];
    for expected in expected {
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected}: {errors:#?}");
    }
    let (read, errors) = all("[[plugin]]\nname = 'a'\nmode = 0660\nx = [1, 2\n\n[broker]\nname = \n");
    assert!(!read && errors.len() >= 2, "{errors:#?}");
    assert!(
        errors[0].starts_with("b.toml:3: a number cannot begin with 0")
            && errors[0].ends_with("mode = \"0660\""),
        "{errors:#?}"
    );
    for text in ["[plugin]\nname = 'a'\n", "[plugin]\nname = 'a'\n[plugin]\nname = 'b'\n"] {
        let (_, errors) = all(text);
        assert!(errors.len() == 1 && errors[0].contains("write [[plugin]] with two brackets"), "{errors:?}");
    }
    let long = "x".repeat(100_000);
    for text in [
        format!("[broker]\nname = {long}"),
        format!("[broker]\nmax_filters = '{long}'"),
        format!("[broker]\n{long} = 1"),
        format!("{long} = 1"),
        format!("[[plugin]]\nname = '{long}'"),
        format!("[[plugin]]\nname = 'a'\nbuiltin = '{long}'"),
        format!("[[plugin]]\nname = 'a'\nlibrary = 'a'\nrestart = '{long}'"),
    ] {
        let (_, errors) = all(&text);
        assert!(!errors.is_empty());
        assert!(
            errors.iter().all(|error| error.len() < 1500),
            "{:?}",
            &errors[0][..2000.min(errors[0].len())]
        );
    }
}

#[test]
fn the_file_is_parsed_once_for_all_errors() {
    const TABLES: usize = 5000;
    let table = |index| format!("[[plugin]]\nname = 'p{index}'\nlibrary = 'x'\nconfig = {{ x = {index} }}\n");
    let text: String = (0..TABLES).map(table).collect();
    let file = ConfigFile::parse(Path::new("b.toml"), text, &[]).unwrap();
    // takes an hour if each lookup parses the file
    for (index, plugin) in file.plugins.iter().enumerate() {
        assert_eq!(plugin.location_of("x"), Some(format!("b.toml:{}", 4 * index + 4)));
    }
    let (_, errors) = parse::parse_all::<NoSettings>(
        Path::new("b.toml"),
        (0..TABLES).map(|index| format!("[unknown{index}]\n")).collect(),
        &[],
    );
    assert_eq!(errors.len(), MAX_ERRORS);
}

#[test]
fn errors_of_plugins_get_line_and_value() {
    let text = "[[plugin]]\nname = 'a'\nlibrary = 'x'\n\n[[plugin]]\nname = 'b'\nlibrary = 'lib/y.so'\n\
                [plugin.config]\npath = '/x'\nbind = ['a:1',\n 'b:2']\n[plugin.config.tls]\nkey = 3\n";
    let file = ConfigFile::parse(Path::new("dir/b.toml"), text.to_owned(), &[]).unwrap();
    let of = |key: &str| {
        let error = PluginError::of_key(key, "wrong");
        file.locate(&BrokerError::Configure { plugin: "b".into(), error }).to_string()
    };
    assert_eq!(of("path"), "dir/b.toml:9: plugin \"b\": path = '/x': wrong");
    assert_eq!(of("bind[1]"), "dir/b.toml:11: plugin \"b\": bind[1] = 'b:2': wrong");
    assert_eq!(of("tls.key"), "dir/b.toml:13: plugin \"b\": tls.key = 3: wrong");
    assert_eq!(of("mode"), "dir/b.toml:8: plugin \"b\": mode: wrong");
    assert_eq!(of(""), "dir/b.toml:8: plugin \"b\": wrong");
    let restart = ConfigFile::parse(
        Path::new("b.toml"),
        "[[plugin]]\nname = 'a'\nlibrary = 'x'\nrestart = 'maybe'".to_owned(),
        &[],
    );
    assert_eq!(
        restart.err().unwrap().to_string(),
        "b.toml:4: plugin \"a\": restart = 'maybe': unknown variant `maybe`, expected `on_failure` or `never`"
    );
    let library = file.builder();
    assert!(format!("{library:?}").contains("dir/lib/y.so"), "relative to the file");
}

#[test]
fn declarations_know_the_locations_of_their_keys() {
    let text = "[[plugin]]\nname = 'a'\nlibrary = 'x'\n\n[[plugin]]\nname = 'b'\nlibrary = 'y'\n\
                [[plugin.config.client]]\nname = 'x'\n[[plugin.config.client]]\nname = 'y'\n\
                publish = ['a/#',\n 'b/#']\n";
    let file = ConfigFile::parse(Path::new("dir/b.toml"), text.to_owned(), &[]).unwrap();
    let of = |key: &str| file.plugins[1].location_of(key).unwrap();
    assert_eq!(of("client[0].name"), "dir/b.toml:9");
    assert_eq!(of("client[1].publish[0]"), "dir/b.toml:12");
    assert_eq!(of("client[1].publish[1]"), "dir/b.toml:13");
    assert_eq!(of("client[1].nothing"), "dir/b.toml:10", "the last part that is there");
    assert_eq!(file.plugins[0].location_of("any").unwrap(), "dir/b.toml:1");
    assert_eq!(PluginDeclaration::library("a", "x").location_of("any"), None);
}

#[test]
fn every_error_has_a_line_of_the_file_and_is_one_line() {
    let parts = |count: usize| vec!["a"; count].join(".");
    let (long, longest) = (parts(81), parts(80));
    for (text, expected) in [
        // the parser gives no position for keys of too many parts
        (format!("{long} = 1"), "b.toml:1: a key has more than 80 parts, separated by dots"),
        (format!("\n[broker]\n\n[broker.{longest}]\nb = 1\n"), "b.toml:4: a key has more than 80 parts"),
        (format!("x = '''\n{long}\n'''\n[y]\n{long} = '''\n{long} = 1'''\n"), "b.toml:5: a key has more"),
        (format!("{longest} = 1"), "b.toml:1: a: unknown key"),
        // values in messages can contain any character
        ("\"a\u{85}b\" = 01".to_owned(), "b.toml:1: a number cannot begin with 0"),
        ("[[plugin]]\nname = 'a\u{9b}'".to_owned(), "b.toml:1: plugin \"a\\u{9b}\": missing key"),
    ] {
        let (_, errors) = parse::parse_all::<NoSettings>(Path::new("b.toml"), text.clone(), &[]);
        assert!(errors[0].to_string().starts_with(expected), "{errors:?}");
        assert!(errors.iter().all(|error| !error.message.contains(char::is_control)), "{errors:?}");
    }
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/broker_toml");
    for entry in std::fs::read_dir(seeds).unwrap() {
        let seed = String::from_utf8(std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let (_, errors) = parse::parse_all::<NoSettings>(Path::new("b.toml"), seed.clone(), &[]);
        for error in errors {
            let lines = 1 + seed.matches('\n').count();
            assert!(error.line.is_some_and(|line| (1..=lines).contains(&line)), "{error:?} of {seed:?}");
            assert!(!error.message.is_empty() && !error.message.contains(char::is_control), "{error:?}");
        }
    }
}
