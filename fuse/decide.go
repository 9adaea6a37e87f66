package fuse

import "fmt"

// State is what is to be done about a word, or was.
type State string

// The states.
const (
	Unknown  State = "unknown"  // nothing was read
	There    State = "there"    // it has the addresses' bits already
	ToBurn   State = "to burn"  // it is empty
	Burnt    State = "burnt"    // it was empty, and has the addresses' bits now
	Conflict State = "conflict" // it has other bits
	Partial  State = "partial"  // it lacks bits, and is not empty
	Locked   State = "locked"   // it is empty and cannot be burnt
)

// decide compares a word with what it is. Words are burnt as a whole, and once: those that have error correction take
// no second burning, and of which they are NXP's manuals do not say for every SoC.
func (w Word) decide(found uint32, locked bool) State {
	switch {
	case found&w.Mask == w.Value:
		return There
	case found&w.Mask&^w.Value != 0:
		return Conflict
	case found != 0:
		return Partial
	case locked:
		return Locked
	}
	return ToBurn
}

// refusal is why a word in a state keeps all from being burnt; empty if it does not.
func (w Word) refusal(s State, found uint32) string {
	switch s {
	case Conflict:
		return fmt.Sprintf("%s (%s) is burnt otherwise: it is 0x%08x, and for 0x%08x the bits 0x%08x would have to be 0 again", w.Name, w.Place, found, w.Value, found&w.Mask&^w.Value)
	case Partial:
		return fmt.Sprintf("%s (%s) is burnt in part: it is 0x%08x, and lacks the bits 0x%08x of 0x%08x; snag burns no word twice", w.Name, w.Place, found, w.Value&^found, w.Value)
	case Locked:
		return fmt.Sprintf("%s (%s) is empty and locked (MAC_ADDR_LOCK): nothing can be burnt there", w.Name, w.Place)
	}
	return ""
}
