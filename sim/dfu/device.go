package dfu

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// device is the USB device of a stage, or of several on one USB session. Its methods come from the carrier, one at a time
// for endpoint 0; the board waits for end.
type device struct {
	b      *Board
	gadget atomic.Pointer[usbdev.Gadget]
	end    chan error  // buffered; nil: the next stage
	taking atomic.Bool // keep configures a gadget as the last one was

	mu     sync.Mutex
	index  int // of the stage in the board's way
	st     *stage
	report *Stage
	hung   bool
	over   bool // end was sent

	alt       int
	state     byte
	status    byte
	notBefore time.Time // for the next GETSTATUS

	file   []byte
	blocks int
	next   uint16          // the block number to come (U-Boot)
	total  int             // bytes of all files in this stage
	got    map[string]bool // names of settings that have their file
	wants  []int           // STM32MP: phases to come
	waits  bool            // STM32MP: for DETACH
	failed string          // STM32MP: why the phase is RESET

	busy    time.Duration // of the block that was sent
	until   time.Time     // it is busy; zero: not begun
	pending byte          // the status that the block or the file ends in

	entities []entity // of the settings with media
	pointer  uint32   // DfuSe
	gone     bool     // the flush is to fail by request
	flip     bool     // the block is to be kept wrong by request

	lingers bool // it has what the next stage is, and is not that yet

	selects int  // FSBL: its counter
	upset   bool // FSBL: by a request that it does not know
	idles   int  // FSBL of 2017: GETSTATUS while idle
}

// newDevice makes the device of a stage.
func (b *Board) newDevice(index int) *device {
	d := &device{b: b, end: make(chan error, 1)}
	d.enter(index)
	d.gadget.Store(usbdev.NewGadget(b.descriptors(d.st), (*function)(d)))
	return d
}

// enter begins a stage.
func (d *device) enter(index int) {
	st := &d.b.way[index]
	d.index, d.st = index, st
	d.report = &Stage{Selects: []uint8{}, Files: []File{}, Requests: map[string]int{}}
	d.state, d.status, d.alt = dfuIdle, 0, 0
	d.file, d.blocks, d.total, d.got = nil, 0, 0, map[string]bool{}
	d.wants, d.waits, d.failed = st.phases, false, ""
	d.selects, d.upset, d.idles = 1, false, 0
	d.entities, d.pointer = make([]entity, len(st.alts)), 0
	if st.runTime {
		d.state = dfuAppIdle
	}
}

// String descriptors of a stage's settings begin here.
const firstName = 4

// descriptors describe a stage. The functional descriptor is behind the last setting.
func (b *Board) descriptors(st *stage) *usbdev.Descriptors {
	d := &usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: b.cfg.Model.ID, Release: st.release,
		Manufacturer: st.maker, Product: st.product, Serial: b.cfg.Serial, Strings: map[uint8]string{},
	}
	c := usbdev.Config{Value: 1, Attributes: 0x40, MaxPower: 50}
	for i, a := range st.alts {
		setting := usbdev.Interface{Alt: uint8(i), Class: 0xfe, SubClass: 1, Protocol: 2}
		if st.runTime {
			setting.Protocol = 1
		}
		name := a.name
		if st.label != "" {
			name = st.label
		}
		if a.vendor {
			setting.Class, setting.SubClass, setting.Protocol = 0xff, 0xff, 0xff
			setting.Endpoints = []usbdev.Endpoint{{Address: 0x81, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 0x01, Type: usbdev.Bulk, MaxPacket: 512}}
		} else if name != "" {
			setting.Name = uint8(firstName + i)
			d.Strings[setting.Name] = name
		}
		if i == len(st.alts)-1 {
			setting.Extra = st.functional()
		}
		c.Interfaces = append(c.Interfaces, setting)
	}
	d.Configs = []usbdev.Config{c}
	return d
}

// functional is the functional descriptor.
func (st *stage) functional() []byte {
	version := cmp.Or(st.version, 0x0110)
	return []byte{9, 0x21, st.attributes, byte(st.detach), byte(st.detach >> 8), byte(st.transfer), byte(st.transfer >> 8), byte(version), byte(version >> 8)}
}

// Descriptors implements [usbdev.Device].
func (d *device) Descriptors() *usbdev.Descriptors { return d.gadget.Load().Descriptors() }

// Control implements [usbdev.Device].
func (d *device) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	d.mu.Lock()
	hung := d.hung
	d.mu.Unlock()
	if hung {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return d.gadget.Load().Control(ctx, s, data)
}

// In implements [usbdev.Device].
func (d *device) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	return d.gadget.Load().In(ctx, ep, buf)
}

// Out implements [usbdev.Device].
func (d *device) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	return d.gadget.Load().Out(ctx, ep, data)
}

// Close makes every transfer fail.
func (d *device) Close() { d.gadget.Load().Close() }

// wait waits for the end of the stage, or of the last one that goes on with this device.
func (d *device) wait(ctx context.Context) error {
	select {
	case err := <-d.end:
		if err != nil || d.b.cfg.EarlyLeave {
			return err
		}
		return virtual.Sleep(ctx, d.b.cfg.LeaveDelay)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave ends the stage. The next one may go on with this device. d.mu is held.
func (d *device) leave(err error) {
	if d.over {
		return
	}
	if err == nil {
		d.edit(func(s *Stage) { s.Complete = true })
		if next := d.index + 1; d.st.keeps && d.b.way[next].name == d.b.cfg.Never {
			d.b.board.Stuck("the next stage never shows on the bus")
			return
		}
		if d.st.keeps && d.b.cfg.Linger > 0 {
			if !d.lingers {
				d.lingers = true
				time.AfterFunc(d.b.cfg.Linger, func() {
					d.mu.Lock()
					defer d.mu.Unlock()
					if d.lingers = false; !d.over {
						d.keep()
					}
				})
			}
			return
		}
		if d.st.keeps {
			d.keep()
			return
		}
	}
	d.over = true
	d.end <- err
}

const setConfiguration = 9 // a standard request

// keep goes on with the next stage as the device that the host has configured. What the host knows of it is the old
// stage's until it resets the device.
func (d *device) keep() {
	d.edit(func(s *Stage) { s.Left = time.Now() })
	d.enter(d.index + 1)
	g := usbdev.NewGadget(d.b.descriptors(d.st), (*function)(d))
	d.b.board.Begin(d.st.name, g.Descriptors(), d.report)
	d.taking.Store(true)
	g.Control(context.Background(), usbdev.Setup{Request: setConfiguration, Value: 1}, nil)
	d.taking.Store(false)
	d.gadget.Store(g)
}

// function is the class's side of a device.
type function device

// Configured begins anew with the protocol, not with what the stage has.
func (f *function) Configured(value uint8) {
	d := (*device)(f)
	if d.taking.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.state == dfuAppDetach, d.state == dfuManifestWaitReset: // it was reset
		d.leave(nil)
		return
	case d.st.runTime:
		return
	}
	d.alt, d.state, d.status, d.file, d.blocks, d.pending = 0, dfuIdle, 0, nil, 0, 0
}

func (f *function) Selected(_, alt uint8) {
	d := (*device)(f)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.alt = int(alt)
	d.notBefore = time.Time{}
	d.edit(func(s *Stage) { s.Selects = append(s.Selects, alt) })
	switch d.st.kind {
	case kindUBoot: // an error is cleared by that
		d.state, d.status, d.file, d.blocks, d.next = dfuIdle, 0, nil, 0, 0
	case kindFSBL:
		d.count()
	}
}

// DFU's requests.
const (
	reqDetach = iota
	reqDownload
	reqUpload
	reqGetStatus
	reqClearStatus
	reqGetState
	reqAbort
)

var requestNames = [...]string{"DETACH", "DNLOAD", "UPLOAD", "GETSTATUS", "CLRSTATUS", "GETSTATE", "ABORT"}

func (f *function) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	d := (*device)(f)
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.Type == 0x81 && s.Request == 6 && s.Value == 0x2100 && d.st.kind != kindFSBL {
		return copy(data, d.st.functional()), nil
	}
	if s.Type&0x7f != 0x21 || s.Request > reqAbort || s.Index != 0 {
		d.violation("request %#02x %#02x with index %d", s.Type, s.Request, s.Index)
		return 0, usbdev.ErrStall
	}
	toHost := s.Request == reqUpload || s.Request == reqGetStatus || s.Request == reqGetState
	// U-Boot and TF-A do not look at the direction of DETACH, and Snagboot sends the wrong one.
	if toHost != s.ToHost() && s.Request != reqDetach {
		d.violation("%s with request type %#02x", requestNames[s.Request], s.Type)
		return 0, usbdev.ErrStall
	}
	if d.st.alts[d.alt].vendor && s.Request != reqGetStatus {
		d.violation("%s while the setting that is not DFU's is selected", requestNames[s.Request])
		return 0, usbdev.ErrStall
	}
	d.edit(func(t *Stage) {
		if t.First.IsZero() {
			t.First = time.Now()
		}
		t.Requests[requestNames[s.Request]]++
	})
	if d.st.kind == kindFSBL {
		return d.fsbl(ctx, s, data)
	}
	if d.st.kind == kindApp {
		return d.app(s, data)
	}
	if d.st.kind == kindUBoot && d.state == dfuDownloadSync && s.Request != reqGetStatus && s.Request != reqGetState {
		d.violation("%s before the status of a block was asked for", requestNames[s.Request])
		return 0, d.fail(errUnknown)
	}
	switch s.Request {
	case reqDownload:
		return d.download(ctx, s.Value, data)
	case reqGetStatus:
		return d.getStatus(data)
	case reqGetState:
		return copy(data, []byte{d.state}), nil
	case reqUpload:
		return d.upload(s.Value, data)
	case reqClearStatus:
		if d.state != dfuError {
			d.violation("CLRSTATUS in %s", stateName(d.state))
			return 0, d.fail(errUnknown)
		}
		d.state, d.status, d.file, d.blocks, d.notBefore = dfuIdle, 0, nil, 0, time.Time{}
		return 0, nil
	case reqAbort:
		if d.state == dfuError {
			d.violation("ABORT in dfuERROR")
			return 0, usbdev.ErrStall
		}
		d.state, d.file, d.blocks = dfuIdle, nil, 0
		return 0, nil
	}
	return d.detach()
}

// edit changes the stage's report.
func (d *device) edit(f func(*Stage)) { d.b.board.Edit(func(*Report) { f(d.report) }) }

func (d *device) violation(format string, args ...any) { d.b.board.Violation(format, args...) }

// fail enters dfuERROR.
func (d *device) fail(status byte) error {
	d.state, d.status, d.pending, d.busy = dfuError, status, 0, 0
	return usbdev.ErrStall
}
