use super::*;

fn mac(text: &str) -> Result<Mac, String> {
    text.to_owned().try_into()
}

fn prefix(text: &str) -> Result<Prefix, String> {
    text.to_owned().try_into()
}

#[test]
fn hardware_addresses_have_six_bytes() {
    assert_eq!(mac("00:11:22:aa:BB:ff"), Ok(Mac([0, 0x11, 0x22, 0xaa, 0xbb, 0xff])));
    assert_eq!(mac("00-11-22-33-44-55"), mac("00:11:22:33:44:55"));
    for wrong in [
        "",
        "00:11:22:33:44",
        "00:11:22:33:44:55:66",
        "0:11:22:33:44:55",
        "+0:11:22:33:44:55",
        "zz:11:22:33:44:55",
    ] {
        assert!(mac(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_network_holds_what_begins_alike() {
    let holds = |network: &str, address: &str| prefix(network).unwrap().holds(address.parse().unwrap());
    assert!(holds("10.1.0.0/16", "10.1.255.255") && !holds("10.1.0.0/16", "10.2.0.0"));
    assert!(holds("10.1.2.3/32", "10.1.2.3") && !holds("10.1.2.3/32", "10.1.2.2"));
    assert!(holds("0.0.0.0/0", "255.0.0.1") && !holds("0.0.0.0/0", "::1"));
    assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::1"));
    assert!(holds("::/0", "fe80::1"));
    for wrong in ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/x"] {
        assert!(prefix(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_signature_that_says_nothing_fits_nothing() {
    let around = Surroundings::default().with_resolvers(vec!["10.1.0.53".parse().unwrap()]);
    let only_dns = Signature { dns: vec!["10.1.0.53".parse().unwrap()], ..Signature::default() };
    for signature in [Signature::default(), only_dns] {
        let networks = Networks::from([("x".to_owned(), signature)]);
        assert_eq!(locate(&networks, &around), Located::Nowhere);
    }
}

#[test]
fn a_signature_is_read_and_a_wrong_one_is_named() {
    let read = |text: &str| toml::from_str::<Networks>(text).map_err(|error| error.to_string());
    let networks = read(
        "[office]\ngateway = \"10.1.0.1\"\ngateway_mac = \"00:11:22:33:44:55\"\nprefix = \"10.1.0.0/16\"\ndns = [\"10.1.0.53\"]\n",
    )
    .unwrap();
    let office = &networks["office"];
    assert!(office.says_something() && office.needs_resolvers());
    for (wrong, says) in [
        ("[x]\ngateway = \"here\"\n", "line 2"),
        ("[x]\ngateway_mac = \"00:11\"\n", "six bytes"),
        ("[x]\nprefix = \"10.1.0.0\"\n", "10.1.0.0/16"),
        ("[x]\ngatewey = \"10.1.0.1\"\n", "gatewey"),
    ] {
        let error = read(wrong).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}
