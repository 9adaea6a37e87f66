package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Remove takes a file away, if there is one of that name. The error is a *fs.PathError.
func (v *Volume) Remove(name string) error {
	f, chain, err := v.removable(name)
	if err == nil {
		v.remove(f, chain)
		v.count()
	} else if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removable finds a file that can be removed, with its clusters.
func (v *Volume) removable(name string) (File, []int, error) {
	f, err := v.find(name)
	if err != nil {
		return f, nil, err
	}
	if f.Dir {
		return f, nil, &fs.PathError{Op: "remove", Path: name, Err: fmt.Errorf("%w: it is a directory", fs.ErrInvalid)}
	}
	chain, err := v.chain(f.cluster, v.Size)
	if err != nil {
		return f, nil, &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	if slices.ContainsFunc(chain, func(c int) bool { return slices.Contains(v.chained, c) }) {
		return f, nil, &fs.PathError{Op: "remove", Path: name, Err: fmt.Errorf("%w: it has a cluster in common with the root directory", ErrDamaged)}
	}
	return f, chain, nil
}

func (v *Volume) remove(f File, chain []int) {
	for _, c := range chain {
		v.set(c, 0)
	}
	for _, at := range f.slots {
		v.data[at] = entryFree
	}
}

// Write makes a file, in place of the one of that name if there is one. The name is of 8 characters and 3 at most, in
// lower case. The error is a *fs.PathError, ErrNoRoom for one; nothing has changed then.
func (v *Volume) Write(name string, data []byte) error {
	fail := func(err error) error { return &fs.PathError{Op: "write", Path: name, Err: err} }
	short, err := newName(name)
	if err != nil {
		return fail(err)
	}
	old, chain, err := v.removable(name)
	exists := err == nil
	if !exists && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	need := (len(data) + v.Cluster - 1) / v.Cluster
	grow := false
	slot, end, ok := v.slot()
	switch {
	case exists:
		slot, end = old.slots[len(old.slots)-1], 0
	case !ok && v.Bits < 32:
		return fail(fmt.Errorf("%w: the root directory is full", ErrNoRoom))
	case !ok && len(v.root)*v.piece >= maxRoot:
		return fail(fmt.Errorf("%w: the root directory is as long as it may be", ErrNoRoom))
	case !ok:
		grow = true
		need++
	}
	if free := v.free() + len(chain); need > free {
		return fail(fmt.Errorf("%w: it takes %d bytes, %d are free", ErrNoRoom, need*v.Cluster, free*v.Cluster))
	}
	if exists {
		v.remove(old, chain)
	}
	clusters := v.take(need)
	if grow {
		slot = v.grow(clusters[0])
		clusters = clusters[1:]
	}
	if end > 0 {
		v.data[end] = entryEnd
	}
	first := 0
	for i, c := range clusters {
		next := v.end() | 7
		if i+1 < len(clusters) {
			next = clusters[i+1]
		}
		v.set(c, next)
		room := v.data[v.at(c):][:v.Cluster]
		clear(room[copy(room, data[i*v.Cluster:]):])
	}
	if len(clusters) > 0 {
		first = clusters[0]
	}
	e := v.data[slot:][:entrySize]
	clear(e)
	copy(e, short[:])
	e[11], e[12] = attrArchive, lowerBase|lowerExt
	le := binary.LittleEndian
	le.PutUint16(e[16:], date1980)
	le.PutUint16(e[18:], date1980)
	le.PutUint16(e[20:], uint16(first>>16))
	le.PutUint16(e[24:], date1980)
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], uint32(len(data)))
	v.count()
	return nil
}

// newName is a file's name as an entry has it.
func newName(name string) (short [11]byte, err error) {
	base, ext, _ := strings.Cut(name, ".")
	const others = "$%'-_@~`!(){}^#&"
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(others, r))
	}
	if base == "" || len(base) > 8 || len(ext) > 3 || strings.ContainsFunc(base+ext, bad) {
		return short, fmt.Errorf("%w: a name of 8 characters and 3 at most is expected, in lower case", fs.ErrInvalid)
	}
	copy(short[:], fmt.Sprintf("%-8s%-3s", strings.ToUpper(base), strings.ToUpper(ext)))
	return short, nil
}

// slot finds room for an entry in the root directory. end is the entry behind it if that is to be the end of the directory from
// now on, else 0.
func (v *Volume) slot() (found, end int, ok bool) {
	last := false
	v.slotsDo(func(at int) bool {
		switch {
		case last:
			end = at
			return false
		case v.data[at] == entryFree:
			found, ok = at, true
			return false
		case v.data[at] == entryEnd:
			found, ok, last = at, true, true
		}
		return true
	})
	return found, end, ok
}

// take finds so many free clusters.
func (v *Volume) take(n int) []int {
	all := make([]int, 0, n)
	for c := firstValid; len(all) < n; c++ {
		if v.next(c) == 0 {
			all = append(all, c)
		}
	}
	return all
}

// grow adds a cluster to the root directory, and returns where it begins.
func (v *Volume) grow(cluster int) int {
	v.set(v.chained[len(v.chained)-1], cluster)
	v.set(cluster, v.end()|7)
	at := v.at(cluster)
	clear(v.data[at:][:v.Cluster])
	v.chained, v.root = append(v.chained, cluster), append(v.root, at)
	return at
}

// count writes into the FSInfo sector how many clusters are free.
func (v *Volume) count() {
	if v.info == 0 {
		return
	}
	binary.LittleEndian.PutUint32(v.data[v.info+488:], uint32(v.free()))
	binary.LittleEndian.PutUint32(v.data[v.info+492:], 0xffffffff) // it is not known where to look first
}
