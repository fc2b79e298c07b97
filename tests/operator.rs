//! What operators' commands do without libvirt, through the real binary.

use std::io::Write;
use std::process::{Command, Output};

use serde_json::Value;

const COMMANDS: &[&str] = &[
    "check",
    "list",
    "show",
    "prune",
    "console",
    "screenshot",
    "render",
    "call",
    "completions",
    "man",
];

fn cpi(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cpi"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        // Where a build with coverage notes what it runs.
        .envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"))
        .env("COLUMNS", "80")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn config(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[track_caller]
fn fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "more than 80 columns: {line}");
    }
}

#[test]
fn help_fits_80_columns_and_names_every_command() {
    let help = stdout(&cpi(&["--help"]));
    fits(&help);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        for flag in ["-h", "--help"] {
            let output = cpi(&[command, flag]);
            assert!(output.status.success());
            fits(&stdout(&output));
        }
    }
}

#[test]
fn without_command_and_configuration_nothing_is_served() {
    let output = cpi(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--config <PATH>"), "{}", stderr(&output));
    for command in ["check", "list"] {
        // On a machine that is no Director.
        let output = cpi(&[command]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains("name one with --config"),
            "{}",
            stderr(&output)
        );
    }
    for wrong in [
        &["prune", "--older-than", "5"][..],
        &["no-such-command"],
        &["list", "vm"],
    ] {
        assert_eq!(cpi(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn check_names_every_mistake_with_its_place() {
    let file = config(
        "{\"libvirt\": {\"prot\": 5,\n  \"type\": \"tcp\"},\n \"settings\": {\"domain_type\": \"xen\"},\n \
         \"agent\": {\"mbus\": [\"hunter2\"]}}",
    );
    let path = file.path().to_str().unwrap();
    let output = cpi(&["check", "--json", "--config", path]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["ok"], false);
    let says: Vec<&str> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["says"].as_str().unwrap())
        .collect();
    let expected = [
        format!("{path}: libvirt.prot: unknown key; did you mean libvirt.port?"),
        format!("{path}: settings.domain_type: expected one of auto, kvm, qemu, got \"xen\""),
        format!("{path}: agent.mbus: expected a string, got a list"),
        format!("{path}: libvirt.host: needed, because libvirt.type is tcp and libvirt.uri is not set"),
    ];
    assert_eq!(says, expected);

    let file = config("{\"settings\":\n  {,}}");
    let output = cpi(&["check", "--config", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains(": not JSON: "), "{}", stdout(&output));
    fits(&stdout(&output));
}

#[test]
fn check_says_how_to_get_to_a_libvirt_that_is_not_there() {
    let file = config(r#"{"libvirt": {"socket": "/no/such/libvirt-sock"}}"#);
    let output = cpi(&["check", "--config", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    fits(&text);
    assert!(
        text.contains("WRONG   connection: ") && text.contains("cure: start libvirt: systemctl"),
        "{text}"
    );
}

#[test]
fn a_call_answers_with_its_result_or_with_its_error_and_exit_code_1() {
    let file = config(r#"{"libvirt": {"socket": "/no/such/libvirt-sock"}}"#);
    let path = file.path().to_str().unwrap();
    let output = cpi(&["call", "info", "--config", path]);
    assert!(output.status.success(), "{}", stderr(&output));
    let info: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(info["api_version"], 3);

    for (arguments, says) in [
        (
            &["has_vm", "vm-00000000-0000-4000-8000-000000000000"][..],
            "Bosh::Clouds::CloudError: connecting",
        ),
        (&["has_vm", "5"], "Bosh::Clouds::CpiError: argument 1 (vm_cid)"),
        (&["has_vm", "a/b"], "Bosh::Clouds::CpiError: argument 1 (vm_cid)"),
        (
            &["create_disk", "-5"],
            "Bosh::Clouds::CpiError: argument 1 (size)",
        ),
        (
            &["create_disk", "5", "{}", "--config", path],
            "Bosh::Clouds::CloudError: connecting",
        ),
        (&["no_such_method"], "Bosh::Clouds::NotImplemented"),
        (&["has_vm", "@/no/such/file"], "/no/such/file"),
    ] {
        let output = cpi(&[&["--config", path, "call"], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            stderr(&output).contains(says),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "");
    }
}

/// Each line below `Methods` in the help: a method and what it takes.
fn listed_methods() -> Vec<Vec<String>> {
    let help = stdout(&cpi(&["call", "--help"]));
    let methods = help.lines().skip_while(|line| !line.starts_with("Methods"));
    methods
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn help_lists_every_method_with_as_many_arguments_as_it_takes() {
    let file = config(r#"{"libvirt": {"socket": "/no/such/libvirt-sock"}}"#);
    let path = file.path().to_str().unwrap();
    let says = |arguments: &[&str]| stderr(&cpi(&[&["--config", path, "call"], arguments].concat()));
    let listed = listed_methods();
    let source = include_str!("../src/methods/mod.rs");
    let mut known: Vec<&str> = source
        .lines()
        .filter(|line| line.contains("::call(arguments, cpi)"))
        .map(|line| line.split('"').nth(1).unwrap())
        .collect();
    known.sort_unstable();
    let mut names: Vec<&str> = listed.iter().map(|line| line[0].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, known);
    for line in &listed {
        let (method, arguments) = line.split_first().unwrap();
        // One more than there are, each of the kind that its name says.
        let values: Vec<&str> = arguments
            .iter()
            .map(|name| match name.trim_matches(['[', ']']) {
                "SIZE" => "1",
                "DISKS" => "[]",
                "CLOUD_PROPERTIES" | "ENV" | "METADATA" | "NETWORKS" | "DEFINITION" | "REQUIREMENTS" => "{}",
                _ => "x",
            })
            .chain(["surplus"])
            .collect();
        let said = says(&[&[method.as_str()], &values[..]].concat());
        let expected = format!("this method takes {} at most", arguments.len());
        assert!(said.contains(&expected), "{method}: {said}");
        let needed: Vec<&str> = arguments
            .iter()
            .zip(&values)
            .filter(|(name, _)| !name.starts_with('['))
            .map(|(_, value)| *value)
            .collect();
        if let Some((_, others)) = needed.split_last() {
            let said = says(&[&[method.as_str()], others].concat());
            let expected = format!("argument {} (", needed.len());
            assert!(
                said.contains(&expected) && said.contains("missing"),
                "{method}: {said}"
            );
        }
    }
}

#[test]
fn a_call_as_json_is_what_bosh_gets() {
    let file = config("{}");
    let path = file.path().to_str().unwrap();
    let answer = |arguments: &[&str]| {
        let output = cpi(&[&["--config", path, "call", "--json"], arguments].concat());
        let response: Value = serde_json::from_str(&stdout(&output)).unwrap();
        (output.status.code(), response)
    };
    let (code, response) = answer(&["info"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        (&response["result"]["api_version"], &response["error"]),
        (&3.into(), &Value::Null)
    );
    let (code, response) = answer(&["has_vm", "5"]);
    assert_eq!(code, Some(1));
    assert_eq!(response["error"]["type"], "Bosh::Clouds::CpiError");
    assert!(
        response["result"].is_null() && response["log"].is_string(),
        "{response}"
    );
}

#[test]
fn whoever_has_read_enough_may_go() {
    let file = config(r#"{"libvirt": {"socket": "/no/such/libvirt-sock"}}"#);
    let command = format!(
        "{} --config {} check | true; echo ${{PIPESTATUS[0]}}; {0} man | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_cpi"),
        file.path().display()
    );
    let output = Command::new("bash").args(["-c", &command]).output().unwrap();
    assert_eq!(
        (stdout(&output).as_str(), stderr(&output).as_str()),
        ("1\n0\n", "")
    );
}

#[test]
fn prune_refuses_to_be_hasty() {
    let file = config("{}");
    let output = cpi(&[
        "prune",
        "--yes",
        "--older-than",
        "9m",
        "--config",
        file.path().to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("at least 10m"), "{}", stderr(&output));
}

#[test]
fn the_manual_page_and_the_completions_are_those_of_the_commands() {
    let text = stdout(&cpi(&["man"]));
    assert!(text.contains(".TH cpi 8"), "{text}");
    for word in COMMANDS.iter().chain(&["cpi.json", "older"]) {
        assert!(text.to_lowercase().contains(word), "{word}: {text}");
    }
    for (shell, says) in [
        ("bash", "complete -F _cpi"),
        ("zsh", "#compdef cpi"),
        ("fish", "complete -c cpi"),
    ] {
        let script = stdout(&cpi(&["completions", shell]));
        assert!(script.contains(says) && script.contains("screenshot"), "{shell}");
    }
    // A reader of manual pages has nothing to complain about.
    let page = config(&text);
    if let Ok(read) = Command::new("man")
        .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
        .arg(page.path())
        .output()
    {
        assert_eq!(stderr(&read), "");
    }
    let script = config(&stdout(&cpi(&["completions", "bash"])));
    let syntax = Command::new("bash")
        .arg("-n")
        .arg(script.path())
        .status()
        .unwrap();
    assert!(syntax.success());
}
