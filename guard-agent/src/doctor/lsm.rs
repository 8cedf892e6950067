//! The boot parameter that makes the kernel ask BPF programs.

/// `lsm=` with the modules that run now, in their order, and `bpf` at the end.
///
/// `capability` is left out: the kernel always puts it first and takes it from no list.
pub fn boot_parameter(running: &str) -> String {
    let modules = running.trim().split(',').filter(|name| !matches!(*name, "" | "capability" | "bpf"));
    format!("lsm={}", modules.chain(["bpf"]).collect::<Vec<_>>().join(","))
}

/// Whether `bpf` is in a list of modules.
pub(super) fn has_bpf(running: &str) -> bool {
    running.trim().split(',').any(|name| name == "bpf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_keeps_the_order_and_appends_bpf() {
        let cases = [
            ("lockdown,capability,landlock,yama,apparmor\n", "lsm=lockdown,landlock,yama,apparmor,bpf"),
            ("capability,yama,selinux,ima,evm", "lsm=yama,selinux,ima,evm,bpf"),
            ("capability", "lsm=bpf"),
            ("capability,bpf,landlock", "lsm=landlock,bpf"),
        ];
        for (running, wanted) in cases {
            assert_eq!(boot_parameter(running), wanted);
        }
    }

    #[test]
    fn bpf_is_a_name_and_not_a_part_of_one() {
        assert!(has_bpf("capability,bpf\n"));
        assert!(!has_bpf("capability,bpfish"));
        assert!(!has_bpf(""));
    }
}
