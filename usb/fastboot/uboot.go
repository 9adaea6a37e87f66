package fastboot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The commands that U-Boot and NXP's U-Boot have beyond Android's (doc/android/fastboot.rst; uuu's FB: commands).
// Numbers in U-Boot's commands are hexadecimal.
const (
	ucmd   = "UCmd:"
	acmd   = "ACmd:"
	oemRun = "oem run:"
)

// MaxACmd is what U-Boot keeps of a command that it is to run later (drivers/fastboot/fb_command.c).
const MaxACmd = 63

// Run has U-Boot run a command line and waits until that is done: by UCmd, or by "oem run" where there is no UCmd.
// U-Boot sends no output, and no reason if the command fails. patience is for its silence meanwhile (0: 5 s). Without
// either the error is ErrUnsupported.
//
// A line that is too long for one command (64 bytes over a network) is put together in U-Boot's environment, and run
// from there.
//
// The line goes to U-Boot's shell, in which ; & | $ quotes and backslashes act: names from files do not belong there
// unchecked.
func (c *Client) Run(ctx context.Context, line string, patience time.Duration) error {
	var err error
	if c.run == "" && len(oemRun)+len(line) > c.most() {
		if err := c.Run(ctx, "true", 0); err != nil { // what runs it?
			return err
		}
	}
	if len(c.run)+len(line) > c.most() {
		return c.runLong(ctx, line, patience)
	}
	if c.run != "" {
		_, err := c.Do(ctx, c.run+line, patience)
		return err
	}
	for _, by := range []string{ucmd, oemRun} { // some 40 of U-Boot's configurations have UCmd, one has oem run
		_, err = c.Do(ctx, by+line, patience)
		if errors.Is(err, ErrUnsupported) {
			continue
		}
		var refused *FailError
		if err == nil || errors.As(err, &refused) {
			c.run = by
		}
		return err
	}
	return fmt.Errorf("%w (U-Boot needs CONFIG_FASTBOOT_UUU_SUPPORT or CONFIG_FASTBOOT_OEM_RUN)", err)
}

// most is how long a command may be that U-Boot is to take as a whole: over a network it cuts off what is longer, and
// runs the rest (net/fastboot_udp.c, net/fastboot_tcp.c).
func (c *Client) most() int {
	switch c.transport.(type) {
	case *UDP, *TCP:
		return maxNetCommand
	}
	return maxCommand
}

const maxNetCommand = 64

// longLine is the variable that runLong puts a line together in.
const longLine = "snag"

// runLong puts a line together in U-Boot's environment, runs it from there, and removes it. In its shell nothing acts
// between single quotes, and double quotes keep what is in a variable as it is.
func (c *Client) runLong(ctx context.Context, line string, patience time.Duration) error {
	head := ""
	for rest := line; rest != ""; {
		set := "setenv " + longLine + " " + head
		n := min(len(rest), c.most()-len(c.run)-len(set)-2)
		quote := "'"
		switch i := strings.IndexByte(rest[:n], '\''); {
		case i > 0:
			n = i
		case i == 0:
			quote, n = `"`, 1
		}
		if _, err := c.Do(ctx, c.run+set+quote+rest[:n]+quote, 0); err != nil {
			return fmt.Errorf("%s: a command of %d bytes goes in parts, by setenv: %w", line, len(line), err)
		}
		rest, head = rest[n:], `"$`+longLine+`"`
	}
	_, err := c.Do(ctx, c.run+"run "+longLine, patience)
	if refused, ok := errors.AsType[*FailError](err); ok {
		err = &FailError{c.run + line, refused.Text}
	}
	if c.broken == nil {
		_, clean := c.Do(ctx, c.run+"setenv "+longLine, 0)
		err = errors.Join(err, clean)
	}
	return err
}

// Start has U-Boot run a command line that does not come back (reset, bootm, booti): by ACmd, which is answered before.
// The line has [MaxACmd] bytes at most.
func (c *Client) Start(ctx context.Context, line string) error {
	if len(line) > MaxACmd {
		return fmt.Errorf("%s%s: of %d bytes, U-Boot takes %d", acmd, line, len(line), MaxACmd)
	}
	return c.leave(ctx, acmd+line)
}

// Format writes the partition table that U-Boot's environment variable "partitions" describes.
func (c *Client) Format(ctx context.Context) error {
	_, err := c.Do(ctx, "oem format", flashTime)
	return err
}

// PartConf sets up which hardware partition of the eMMC is booted from, as "mmc partconf" does.
func (c *Client) PartConf(ctx context.Context, ack, partition int) error {
	_, err := c.Do(ctx, fmt.Sprintf("oem partconf:%x %x", ack, partition), 0)
	return err
}

// BootBus sets up the bus that the eMMC is booted over, as "mmc bootbus" does.
func (c *Client) BootBus(ctx context.Context, width, reset, mode int) error {
	_, err := c.Do(ctx, fmt.Sprintf("oem bootbus:%x %x %x", width, reset, mode), 0)
	return err
}

// Console types a line into U-Boot's console, if it is not empty, and returns what the console has shown since the last
// time.
func (c *Client) Console(ctx context.Context, line string) ([]string, error) {
	command := "oem console"
	if line != "" {
		command += ":" + line
	}
	var shown []string
	show := c.Info
	defer func() { c.Info = show }()
	c.Info = func(s string) { shown = append(shown, s) }
	_, err := c.Do(ctx, command, 0)
	var refused *FailError
	if errors.As(err, &refused) && strings.Contains(refused.Text, "Empty console") {
		return nil, nil
	}
	return shown, err
}

// WriteGPT has U-Boot write the partition table of a device, from a description as "gpt write" has it:
// "name=boot,size=8MiB;name=rootfs,size=-".
func (c *Client) WriteGPT(ctx context.Context, device int, partitions string) error {
	if partitions == "" || strings.ContainsAny(partitions, "'\\\n\r\x00") {
		return fmt.Errorf("partitions %q: expected name=...,size=...;..., without quotes", partitions)
	}
	if err := c.Run(ctx, fmt.Sprintf("gpt write mmc %d '%s'", device, partitions), flashTime); err != nil {
		return fmt.Errorf("partition table of mmc %d (CONFIG_CMD_GPT is needed, and unless partitions have a uuid, CONFIG_RANDOM_UUID): %w", device, err)
	}
	return nil
}
