package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"time"
)

// Places of the i.MX6Quad (IMX6DQRM, table 2-1).
const (
	romStart = 0          // boot ROM; where the processor begins
	ocram    = 0x00900000 // on-chip RAM
	ocramEnd = 0x00940000
)

// supervisor is the processor's state at an image's entry: supervisor mode, interrupts off, as at reset
// (ARM DDI 0406C, B1.3.3). thumb is the bit that an odd entry sets.
const (
	supervisor = 0x1d3
	thumb      = 0x20
)

const (
	// splIdle is what U-Boot's SPL prints before it hangs, when it found nothing to boot (common/spl/spl.c).
	splIdle = "failed to boot from all boot devices"
	splTime = 30 * time.Second // until it does; a tenth of a second on an idle computer
)

// Config says how the machine runs. The zero value takes QEMU from the PATH.
type Config struct {
	// QEMU is qemu-system-arm, 7.2 or newer, not started yet; its arguments are added to, its ExtraFiles
	// replaced. The default is that of the PATH.
	QEMU *exec.Cmd

	// UART are where what the first two UARTs print is written to as well. A write that blocks holds the UART up.
	UART [2]io.Writer
}

// Machine is an i.MX6Quad board. Its methods may be called from several goroutines.
//
// Until Jump, and after Reset and AwaitReset, the processor is held, as if it were in the boot ROM.
type Machine struct {
	UART [2]*Console // the first two; which of them is the console is the firmware's choice

	qemu   *process
	uncut  func() bool // the context no longer ends QEMU
	once   sync.Once   // for Close
	closed chan struct{}

	mu      sync.Mutex // held through a command
	stub    *stub
	broken  error
	running *run // nil while the processor is held
}

// run is a time in which the processor executes.
type run struct {
	held chan struct{} // closed when the processor stopped, by itself or interrupted
	err  error         // after held
}

// Start starts QEMU, which ends with ctx or Close.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	return launch(ctx, cfg, "sabrelite", 1, romStart)
}

// launch starts one of QEMU's machines, whose processor stops where the boot ROM begins, or goes on. first is the
// number of the first UART.
func launch(ctx context.Context, cfg Config, machine string, first int, rom uint32) (*Machine, error) {
	cmd := cfg.QEMU
	if cmd == nil {
		file, err := exec.LookPath("qemu-system-arm")
		if err != nil {
			return nil, fmt.Errorf("a board that executes needs QEMU (package qemu-system-arm): %w", err)
		}
		cmd = exec.Command(file)
	}
	cmd.Args = append(cmd.Args, "-no-user-config", "-nodefaults", "-display", "none", "-machine", machine, "-m", "1G", "-S")
	conns, err := connect(cmd, "-gdb", "-serial", "-serial")
	if err != nil {
		return nil, err
	}
	m := &Machine{stub: newStub(conns[0]), closed: make(chan struct{})}
	for i := range m.UART {
		m.UART[i] = newConsole(fmt.Sprintf("UART%d", i+first), conns[i+1], cfg.UART[i])
	}
	m.qemu, err = startProcess(cmd)
	for _, f := range cmd.ExtraFiles {
		f.Close() // QEMU has its own, and its end is to be seen
	}
	if err != nil {
		m.disconnect()
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	m.uncut = context.AfterFunc(ctx, func() { m.qemu.cmd.Process.Kill() })
	for _, c := range m.UART {
		go c.receive()
	}
	err = m.debug(ctx, func() error {
		if err := m.stub.prepare(); err != nil {
			return err
		}
		return m.stub.breakAt(rom)
	})
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("QEMU's %s: %w", machine, err)
	}
	return m, nil
}

// Close ends QEMU, and with it everything that waits for the machine.
func (m *Machine) Close() error {
	m.once.Do(func() {
		m.uncut()
		close(m.closed)
		m.qemu.kill()
		m.disconnect()
	})
	return nil
}

// connect adds options to QEMU's command line that each name a character device, and returns our ends of these.
func connect(cmd *exec.Cmd, options ...string) (conns []net.Conn, err error) {
	defer func() {
		if err != nil {
			for i, c := range conns {
				c.Close()
				cmd.ExtraFiles[i].Close()
			}
		}
	}()
	cmd.ExtraFiles = nil
	for i, option := range options {
		conn, file, err := socketPair()
		if err != nil {
			return conns, err
		}
		conns, cmd.ExtraFiles = append(conns, conn), append(cmd.ExtraFiles, file)
		cmd.Args = append(cmd.Args, "-chardev", fmt.Sprintf("socket,id=c%d,fd=%d", i, 3+i), option, fmt.Sprintf("chardev:c%d", i))
	}
	return conns, nil
}

func (m *Machine) disconnect() {
	m.stub.conn.Close()
	for _, c := range m.UART {
		c.conn.Close()
	}
}

// ReadMemory reads from the bus; b of up to four bytes in one access, if addr is a multiple of their number. Where
// the board has nothing, or a device that QEMU lacks, it reads 0. It fails while the processor runs.
func (m *Machine) ReadMemory(ctx context.Context, addr uint32, b []byte) error {
	return m.held(ctx, func() error { return m.stub.readMemory(addr, b) })
}

// WriteMemory writes to the bus, as ReadMemory reads from it. Where there is nothing, what is written is lost
// without an error.
func (m *Machine) WriteMemory(ctx context.Context, addr uint32, b []byte) error {
	return m.held(ctx, func() error { return m.stub.writeMemory(addr, b) })
}

// Jump has the processor execute what is at entry; Thumb code if it is odd. If that is in on-chip RAM it is an SPL:
// Jump returns when it has set up the board and waits for its next stage, with the processor held. An error then says
// that it did not come so far, and the processor still runs.
func (m *Machine) Jump(ctx context.Context, entry uint32) error {
	pc, state := entry, uint32(supervisor)
	if entry&1 != 0 {
		pc, state = entry&^1, supervisor|thumb
	}
	var printed [2]int
	for i, c := range m.UART {
		printed[i] = c.printed()
	}
	r, err := m.execute(ctx, register{regPC, pc}, register{regCPSR, state})
	if err != nil {
		return fmt.Errorf("jump to %#x: %w", entry, err)
	}
	if entry < ocram || entry >= ocramEnd {
		return nil
	}
	if err := m.awaitSPL(ctx, r, printed); err != nil {
		return fmt.Errorf("SPL at %#x does not come to wait for its next stage: %w", entry, err)
	}
	return m.debug(ctx, func() error { return m.hold(r) })
}

// register is a value of one.
type register struct {
	number int
	value  uint32
}

// execute lets the processor execute with these registers.
func (m *Machine) execute(ctx context.Context, registers ...register) (r *run, err error) {
	err = m.held(ctx, func() error {
		for _, x := range registers {
			if err := m.stub.writeRegister(x.number, x.value); err != nil {
				return err
			}
		}
		r, err = m.resume()
		return err
	})
	return r, err
}

// awaitSPL waits until an SPL has no boot device left to try.
func (m *Machine) awaitSPL(ctx context.Context, r *run, printed [2]int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, splTime, fmt.Errorf("not within %v", splTime))
	defer cancel()
	results := make(chan error, len(m.UART))
	for i, c := range m.UART {
		go func() {
			_, err := c.await(ctx, printed[i], splIdle)
			results <- err
		}()
	}
	select {
	case err := <-results:
		return err
	case <-r.held:
		if r.err != nil {
			return m.fault(r.err)
		}
		return errors.New("it resets the board")
	}
}

// AwaitReset waits until the software has reset the board: the processor is held, in the boot ROM; devices are as
// at power-on, memory is as it was.
func (m *Machine) AwaitReset(ctx context.Context) error {
	m.mu.Lock()
	r := m.running
	m.mu.Unlock()
	if r == nil {
		return nil
	}
	select {
	case <-r.held:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the board's reset: %w", context.Cause(ctx))
	}
	return m.held(ctx, func() error {
		pc, err := m.stub.readRegister(regPC)
		if err == nil && pc != romStart {
			err = fmt.Errorf("the processor stopped at %#x, not at a reset", pc)
		}
		return err
	})
}

// Reset resets the board, whatever it does, as AwaitReset has it.
func (m *Machine) Reset(ctx context.Context) error {
	return m.debug(ctx, func() error {
		if r := m.running; r != nil {
			if err := m.hold(r); err != nil {
				return err
			}
		}
		return m.stub.monitor("system_reset")
	})
}

// debug does what talks with the stub. After an error other than a refusal nothing can any more.
func (m *Machine) debug(ctx context.Context, f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.locked(ctx, f)
}

func (m *Machine) locked(ctx context.Context, f func() error) error {
	if m.broken != nil {
		return m.broken
	}
	release := m.stub.bound(ctx)
	defer release()
	err := f()
	switch {
	case err == nil || errors.Is(err, errRefused):
		return err
	case ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	default:
		err = m.fault(err)
	}
	m.broken = fmt.Errorf("the machine is of no more use: %w", err)
	return err
}

// held is debug for what needs the processor held.
func (m *Machine) held(ctx context.Context, f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.running; r != nil {
		select {
		case <-r.held:
			m.running = nil
			if r.err != nil {
				m.broken = m.fault(r.err)
			}
		default:
			return errors.New("the processor runs: the boot ROM has no more part in it")
		}
	}
	return m.locked(ctx, f)
}

// fault puts QEMU's end, if that is behind it, before an error of the connection.
func (m *Machine) fault(err error) error {
	select {
	case <-m.closed:
		return errors.New("the machine was closed")
	default:
	}
	select {
	case <-m.qemu.ended:
		return m.qemu.why()
	case <-time.After(time.Second): // its sockets close before it has ended
		return err
	}
}

// resume lets the processor execute.
func (m *Machine) resume() (*run, error) {
	if err := m.stub.send("c"); err != nil {
		return nil, err
	}
	r := &run{held: make(chan struct{})}
	m.running = r
	go func() {
		defer close(r.held)
		stop, err := m.stub.receive() // "T05thread:01;"
		if err == nil && (stop == "" || stop[0] != 'T' && stop[0] != 'S') {
			err = refusal(stop)
		}
		r.err = err
	}()
	return r, nil
}

// hold stops the processor.
func (m *Machine) hold(r *run) error {
	if _, err := m.stub.conn.Write([]byte{interrupt}); err != nil {
		return err
	}
	<-r.held // the reader has a deadline
	m.running = nil
	return r.err
}
