//! Tables of abuse.ch, as they are published and as they might be.

use std::net::Ipv4Addr;

use ironclad_core::Cidr;
use ironclad_policy::list::{AddressList, ListError, ListFormat, ListOptions, ListReport};
use proptest::prelude::*;

#[track_caller]
fn read(format: &ListFormat, text: &str) -> AddressList {
    let options = ListOptions::new().format(format.clone());
    AddressList::parse("t.csv", text.as_bytes(), &options).unwrap()
}

fn entries(list: &AddressList) -> Vec<String> {
    list.entries().iter().map(|entry| format!("{} {}", entry.line, entry.cidr)).collect()
}

#[track_caller]
fn errors(format: &ListFormat, text: &str) -> Vec<String> {
    let options = ListOptions::new().format(format.clone());
    match AddressList::parse("f", text.as_bytes(), &options) {
        Err(ListError::Bad { errors, .. }) => {
            errors.iter().map(|error| error.to_string().replacen("f:", "", 1)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn counts(report: &ListReport) -> [u64; 5] {
    [report.comments, report.directives, report.ports, report.blank, report.skipped]
}

const FEODO: &str = "\
################################################################
# abuse.ch Feodo Tracker Botnet C2 IP Blocklist (CSV)          #
# Last updated: 2024-05-14 11:15:02 UTC                        #
#
# For questions please contact feodotracker [at] abuse.ch      #
################################################################
#
\"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\",\"last_online\",\"malware\"
\"2021-01-17 07:44:46\",\"192.0.2.161\",\"4643\",\"online\",\"2024-05-14\",\"Dridex\"
\"2023-11-28 09:01:01\",\"198.51.100.44\",\"443\",\"offline\",\"2024-05-13\",\"Pika, \"\"bot\"\"\"
# END (2 entries)
";

const SSLBL: &str = "\
################################################################\r
# abuse.ch SSLBL Botnet C2 IP Blacklist (CSV)                  #\r
#\r
# Firstseen,DstIP,DstPort\r
2024-05-14 05:25:25,192.0.2.87,40550\r
2024-05-13 14:08:04,2001:db8::7,8848\r
2024-05-13 14:08:03,198.51.100.7,\r
";

#[test]
fn tables_as_abuse_ch_publishes_them() {
    for format in [ListFormat::csv(), ListFormat::csv_column("dst_ip")] {
        let list = read(&format, FEODO);
        assert_eq!(entries(&list), ["9 192.0.2.161/32", "10 198.51.100.44/32"]);
        assert_eq!(counts(list.report()), [8, 1, 2, 0, 0]);
        assert_eq!(
            list.report().to_string(),
            "t.csv: 2 entries from 11 lines, 2 with a port that is not kept"
        );
    }
    for format in [ListFormat::csv(), ListFormat::csv_column("dstip")] {
        let list = read(&format, SSLBL);
        assert_eq!(entries(&list), ["5 192.0.2.87/32", "6 2001:db8::7/128", "7 198.51.100.7/32"]);
        assert_eq!(counts(list.report()), [4, 0, 2, 0, 0]);
    }
    // ThreatFox: blanks after the commas, the header in a comment, port and address in one.
    let text = "# \"first_seen_utc\",\"ioc_id\",\"ioc_value\",\"ioc_type\"\n\
                \"2024-05-14 10:00:00\", \"1\", \"192.0.2.1:443\", \"ip:port\"\n\
                \"2024-05-14 10:00:00\", \"2\", \"[2001:db8::1]:8080\", \"ip:port\"\n";
    for format in [ListFormat::csv(), ListFormat::csv_column("IOC_Value")] {
        let list = read(&format, text);
        assert_eq!(entries(&list), ["2 192.0.2.1/32", "3 2001:db8::1/128"]);
        assert_eq!(list.report().ports, 2);
    }
}

#[test]
fn the_column_is_the_first_address_or_that_of_the_name() {
    let text = "src_ip,note,dst_ip\n10.0.0.1,x,10.0.0.2/31\n10.0.0.3,,10.0.0.4\n";
    assert_eq!(entries(&read(&ListFormat::csv(), text)), ["2 10.0.0.1/32", "3 10.0.0.3/32"]);
    let named = ListFormat::csv_column("DST_IP");
    assert_eq!(entries(&read(&named, text)), ["2 10.0.0.2/31", "3 10.0.0.4/32"]);

    // Without a header, without anything else, and with nothing.
    assert_eq!(entries(&read(&ListFormat::csv(), "1,10.0.0.1\n2,10.0.0.2")).len(), 2);
    assert_eq!(entries(&read(&ListFormat::csv(), "10.0.0.1\n10.0.0.2")).len(), 2);
    assert_eq!(entries(&read(&ListFormat::csv(), "[2001:db8::]\n")), ["1 2001:db8::/128"]);
    assert!(entries(&read(&ListFormat::csv(), "# nothing today\nip,port\n")).is_empty());
    assert!(entries(&read(&named, "")).is_empty());

    // Both a comment and a row have the names.
    let twice = "# ip,port\nip,port\n10.0.0.1,80\n";
    for format in [ListFormat::csv(), ListFormat::csv_column("ip")] {
        let list = read(&format, twice);
        assert_eq!((entries(&list), list.report().ports), (vec!["3 10.0.0.1/32".to_owned()], 1));
    }
}

#[test]
fn host_bits_are_cleared_and_said() {
    let list = read(&ListFormat::csv(), "\"x\",\"10.1.2.3/8\"\n");
    assert_eq!(entries(&list), ["1 10.0.0.0/8"]);
    assert_eq!(
        list.report().first_normalised[0].to_string(),
        "line 1: `10.1.2.3/8` has host bits, read as 10.0.0.0/8"
    );
}

#[test]
fn bad_rows() {
    let any = ListFormat::csv();
    let address = "expected an IPv4 or IPv6 address, a prefix or a range";
    for (row, expected) in [
        ("x,y", format!("3:1: `x`: {address}")),
        ("", String::new()),
        (",y", "3:1: nothing: expected an address in column 1".into()),
        ("  , y", "3:3: nothing: expected an address in column 1".into()),
        ("\"\",y", "3:2: nothing: expected an address in column 1".into()),
        (
            "10.0.0.300,y",
            "3:1: `10.0.0.300`: expected an IPv4 address: four numbers from 0 to 255 with dots between them".into(),
        ),
        (
            "10.0.0.1:99999",
            "3:9: `:99999`: expected an address without a port".into(),
        ),
        ("\"10.0.0.1", "3:1: `\"10.0.0.1`: expected a quotation mark at the end, too".into()),
        ("10.0.0.1,\"open", "3:10: `\"open`: expected a quotation mark at the end, too".into()),
        ("\"10.0.0.1\" 7,y", "3:12: `7,y`: expected a comma after the quotation mark".into()),
        ("10.0.0.1-10.0.0.9", format!("3:1: `10.0.0.1-10.0.0.9`: {address}")),
        ("\"10.0.0.\"\"1\"", format!("3:2: `10.0.0.\"\"1`: {address}")),
        ("<html>", format!("3:1: `<html>`: {address}")),
    ] {
        let found = match row {
            "" => Vec::new(),
            row => errors(&any, &format!("ip,what\n10.0.0.9,z\n{row}\n10.0.0.8,z\n")),
        };
        let expected: Vec<_> = Some(expected).filter(|text| !text.is_empty()).into_iter().collect();
        assert_eq!(found, expected, "{row}");
    }
    assert_eq!(errors(&any, "1,10.0.0.1\n2\n"), ["2:2: nothing: expected an address in column 2"]);
    assert_eq!(
        errors(&any, "2024-05-14,none\nip,port\n10.0.0.1,5\n"),
        [
            "1:1: `2024-05-14,none`: expected a row with an address, or a header before it",
            "2:1: `ip,port`: expected a row with an address, or a header before it"
        ]
    );
    assert_eq!(
        errors(&ListFormat::csv_column("dst_ip"), "# ip,port\nip,port\n10.0.0.1,5\n"),
        [
            "2:1: `ip,port`: expected a header with the column `dst_ip`",
            "3:1: `10.0.0.1,5`: expected a header with the column `dst_ip`"
        ]
    );
}

proptest! {
    // Quoted or not, with whatever beside it: the addresses of the column are read, in their order.
    #[test]
    fn what_was_rendered_is_read(
        rows in prop::collection::vec(
            (any::<u32>(), 0u8..=32, "[a-z ,\"#;]{0,9}", any::<bool>(), any::<Option<u16>>()),
            1..20,
        ),
        has_header in any::<bool>(),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let mut text = String::from(if has_header { "# made up" } else { "# first,ip,last" });
        text += end;
        if has_header {
            text += &format!("first,\"ip\",last{end}");
        }
        let mut expected = Vec::new();
        for (n, length, note, quoted, port) in &rows {
            let cidr = Cidr::new(Ipv4Addr::from(*n).into(), *length).unwrap();
            let note = format!("\"{}\"", note.replace('"', "\"\""));
            let (field, cidr) = match port {
                Some(port) => (format!("{}:{port}", cidr.addr()), Cidr::host(cidr.addr())),
                None => (cidr.to_string(), cidr),
            };
            text += &match quoted {
                true => format!("{note}, \"{field}\" ,{note}{end}"),
                false => format!("{note},{field},{note}{end}"),
            };
            expected.push(cidr);
        }
        for format in [ListFormat::csv(), ListFormat::csv_column("IP")] {
            let list = read(&format, &text);
            prop_assert!(list.entries().iter().map(|entry| entry.cidr).eq(expected.iter().copied()));
            let ports = rows.iter().filter(|row| row.4.is_some()).count();
            prop_assert_eq!(list.report().ports, ports as u64);
        }
    }
}
