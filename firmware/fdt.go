package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Flattened device tree: Devicetree Specification v0.4, chapter 5. Big-endian.
//
//	offset size field
//	0      4    magic 0xd00dfeed
//	4      4    total size
//	8      4    offset of the structure block
//	12     4    offset of the strings block
//	16     4    offset of the memory reservation block
//	20     4    version: 17
//	24     4    last compatible version: 16
//	28     4    boot CPU
//	32     4    size of the strings block
//	36     4    size of the structure block
//
// The structure block is a sequence of tokens, each at a multiple of four: BEGIN_NODE and its
// name, END_NODE, PROP with length, offset of the name in the strings block and value, NOP, END.
const (
	fdtMagic      = 0xd00dfeed
	fdtHeaderSize = 40

	fdtBeginNode = 1
	fdtEndNode   = 2
	fdtProp      = 3
	fdtNop       = 4
	fdtEnd       = 9

	// What no firmware image comes near, and what keeps a hostile one from costing much.
	fdtMaxDepth = 32
	fdtMaxItems = 1 << 18 // nodes and properties
)

// Node is one node of a device tree. Values are parts of the parsed slice.
type Node struct {
	Name     string
	Props    []Prop
	Children []*Node
}

// Prop is one property of a node.
type Prop struct {
	Name  string
	Value []byte
}

// FDT is a parsed device tree.
type FDT struct {
	Size int // total size that the header states; a FIT's external data follows it
	Root *Node
}

// ParseFDT reads the device tree at the start of b.
func ParseFDT(b []byte) (*FDT, error) {
	if len(b) < 4 || binary.BigEndian.Uint32(b) != fdtMagic {
		return nil, errors.New("no device tree: it does not begin with d0 0d fe ed")
	}
	if len(b) < fdtHeaderSize {
		return nil, fmt.Errorf("device tree: %w: %d bytes, the header alone has %d", ErrTruncated, len(b), fdtHeaderSize)
	}
	field := func(off int) uint64 { return uint64(binary.BigEndian.Uint32(b[off:])) }
	total := field(4)
	if total > uint64(len(b)) {
		return nil, fmt.Errorf("device tree: %w: the header announces %d bytes, the file has %d", ErrTruncated, total, len(b))
	}
	if v, compat := field(20), field(24); v < 17 || compat > 17 {
		return nil, fmt.Errorf("device tree: version %d (compatible to %d), expected 17", v, compat)
	}
	block := func(what string, off, size uint64) ([]byte, error) {
		if off < fdtHeaderSize || off+size > total {
			return nil, fmt.Errorf("device tree: %s block at %d, %d bytes, lies outside the tree's %d bytes", what, off, size, total)
		}
		return b[off : off+size], nil
	}
	structure, err := block("structure", field(8), field(36))
	if err != nil {
		return nil, err
	}
	strings, err := block("strings", field(12), field(32))
	if err != nil {
		return nil, err
	}
	w := fdtWalk{structure: structure, strings: strings}
	root, err := w.tree()
	if err != nil {
		return nil, fmt.Errorf("device tree: at byte %d of the structure block: %w", w.pos, err)
	}
	return &FDT{Size: int(total), Root: root}, nil
}

type fdtWalk struct {
	structure, strings []byte
	pos, items         int
}

var errFDTEnds = errors.New("the block ends inside the tree")

func (w *fdtWalk) tree() (*Node, error) {
	var root *Node
	var open []*Node // the path from the root to the node being read
	for {
		token, err := w.uint32()
		if err != nil {
			return nil, err
		}
		switch token {
		case fdtNop:
			continue
		case fdtBeginNode:
			name, err := w.cstring()
			if err != nil {
				return nil, err
			}
			n := &Node{Name: name}
			switch {
			case len(open) >= fdtMaxDepth:
				return nil, fmt.Errorf("nodes nested more than %d deep", fdtMaxDepth)
			case len(open) > 0:
				parent := open[len(open)-1]
				parent.Children = append(parent.Children, n)
			case root != nil:
				return nil, errors.New("a second root node")
			default:
				root = n
			}
			open = append(open, n)
		case fdtEndNode:
			if len(open) == 0 {
				return nil, errors.New("a node ends that never began")
			}
			open = open[:len(open)-1]
		case fdtProp:
			p, err := w.prop()
			if err != nil {
				return nil, err
			}
			if len(open) == 0 {
				return nil, errors.New("a property outside of any node")
			}
			n := open[len(open)-1]
			n.Props = append(n.Props, p)
		case fdtEnd:
			if root == nil || len(open) > 0 {
				return nil, errors.New("the tree ends before its nodes do")
			}
			return root, nil
		default:
			return nil, fmt.Errorf("unknown token %#x", token)
		}
		if w.items++; w.items > fdtMaxItems {
			return nil, fmt.Errorf("more than %d nodes and properties", fdtMaxItems)
		}
	}
}

func (w *fdtWalk) uint32() (uint32, error) {
	if len(w.structure)-w.pos < 4 {
		return 0, errFDTEnds
	}
	v := binary.BigEndian.Uint32(w.structure[w.pos:])
	w.pos += 4
	return v, nil
}

func (w *fdtWalk) cstring() (string, error) {
	end := bytes.IndexByte(w.structure[w.pos:], 0)
	if end < 0 {
		return "", errFDTEnds
	}
	s := string(w.structure[w.pos : w.pos+end])
	return s, w.skip(end + 1)
}

func (w *fdtWalk) prop() (Prop, error) {
	size, err := w.uint32()
	if err != nil {
		return Prop{}, err
	}
	off, err := w.uint32()
	if err != nil {
		return Prop{}, err
	}
	if uint64(size) > uint64(len(w.structure)-w.pos) {
		return Prop{}, fmt.Errorf("a property of %d bytes: %w", size, errFDTEnds)
	}
	if uint64(off) >= uint64(len(w.strings)) {
		return Prop{}, fmt.Errorf("a property's name at %d of %d bytes of strings", off, len(w.strings))
	}
	name, _, ok := bytes.Cut(w.strings[off:], []byte{0})
	if !ok || len(name) > 255 {
		return Prop{}, fmt.Errorf("a property's name at %d has no end", off)
	}
	value := w.structure[w.pos : w.pos+int(size)]
	return Prop{Name: string(name), Value: value}, w.skip(int(size))
}

// skip steps over n bytes and the padding after them.
func (w *fdtWalk) skip(n int) error {
	if w.pos = (w.pos + n + 3) &^ 3; w.pos > len(w.structure) {
		w.pos = len(w.structure)
		return errFDTEnds
	}
	return nil
}

// Child returns the child of that name, or nil. It may be called on nil.
func (n *Node) Child(name string) *Node {
	if n == nil {
		return nil
	}
	for _, c := range n.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Prop returns the value of a property, and whether there is one.
func (n *Node) Prop(name string) ([]byte, bool) {
	if n == nil {
		return nil, false
	}
	for _, p := range n.Props {
		if p.Name == name {
			return p.Value, true
		}
	}
	return nil, false
}

// Text returns a string property without its NUL, fit for a message; empty if there is none.
func (n *Node) Text(name string) string {
	v, _ := n.Prop(name)
	s, _, _ := bytes.Cut(v, []byte{0})
	return printable(string(s))
}

// maxTexts is more strings than a property of an image has.
const maxTexts = 256

// Texts returns the strings of a property that is a list of them, fit for messages, and no more than are sensible.
func (n *Node) Texts(name string) []string {
	v, _ := n.Prop(name)
	var all []string
	for s := range bytes.SplitSeq(v, []byte{0}) {
		if len(s) > 0 && len(all) < maxTexts {
			all = append(all, printable(string(s)))
		}
	}
	return all
}

// Uint returns a property of one or two cells, and whether there is one.
func (n *Node) Uint(name string) (uint64, bool) {
	v, _ := n.Prop(name)
	switch len(v) {
	case 4:
		return uint64(binary.BigEndian.Uint32(v)), true
	case 8:
		return binary.BigEndian.Uint64(v), true
	}
	return 0, false
}
