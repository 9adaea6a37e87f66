// Package setup prepares a machine so that an ordinary user may recover boards, and tells what is
// missing where that does not work.
//
// [Setup] is run once, as root: it installs the helper snag-netmove with its one capability, the udev
// rules that [Rules] generates from the families' USB IDs, the root-owned list of further IDs and, where
// the distribution restricts user namespaces, an AppArmor profile. It is idempotent, and it can stage its
// files for a package, compare them, and take them away again. [Doctor] looks at the running system and
// names the mend for everything that would keep a recovery from working.
//
// What stands behind each file is told in docs/setup.md and docs/decisions/0004-privileged-helper.md.
package setup
