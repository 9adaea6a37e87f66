package bmap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// Keyring is the OpenPGP keys whose signatures are trusted.
type Keyring struct{ keys openpgp.EntityList }

// ParseKeyring reads public keys as "gpg --export" writes them, armored or not. Only these are trusted, not the user's
// GnuPG keyring.
func ParseKeyring(b []byte) (*Keyring, error) {
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN PGP")) {
		read = openpgp.ReadArmoredKeyRing
	}
	keys, err := read(bytes.NewReader(b))
	if err == nil && len(keys) == 0 {
		err = errors.New("it holds no key")
	}
	if err != nil {
		return nil, fmt.Errorf("OpenPGP keyring: %w (expected what \"gpg --export KEY\" writes)", err)
	}
	return &Keyring{keys}, nil
}

// Verify checks the detached signature sig, armored or not, over b. It returns the fingerprint of the key that signed,
// in upper-case hexadecimal digits.
func (k *Keyring) Verify(b, sig []byte) (fingerprint string, err error) {
	check := openpgp.CheckDetachedSignature
	if bytes.HasPrefix(bytes.TrimSpace(sig), []byte("-----BEGIN PGP")) {
		check = openpgp.CheckArmoredDetachedSignature
	}
	signer, err := check(k.keys, bytes.NewReader(b), bytes.NewReader(sig), nil)
	return fingerprintOf(signer, err)
}

// clearsignMark begins a file that carries its signature with it (RFC 9580, section 7).
const clearsignMark = "-----BEGIN PGP SIGNED MESSAGE-----"

// Clearsigned reports whether b is a clear-signed file, and returns the block map that stands in it, not yet trusted.
func Clearsigned(b []byte) (plain []byte, ok bool) {
	if !bytes.HasPrefix(b, []byte(clearsignMark)) {
		return nil, false
	}
	block, _ := clearsign.Decode(b)
	if block == nil {
		return nil, false
	}
	return plaintext(block), true
}

// VerifyClearsigned checks the signature that a clear-signed file carries, and returns the block map in it and the
// fingerprint of the key that signed.
func (k *Keyring) VerifyClearsigned(b []byte) (plain []byte, fingerprint string, err error) {
	block, rest := clearsign.Decode(b)
	if block == nil {
		return nil, "", errors.New("OpenPGP signature: no clear-signed text")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, "", errors.New("OpenPGP signature: bytes behind the signed text")
	}
	sig, err := io.ReadAll(block.ArmoredSignature.Body)
	if err != nil {
		return nil, "", fmt.Errorf("OpenPGP signature: %w", err)
	}
	signer, err := openpgp.CheckDetachedSignature(k.keys, bytes.NewReader(block.Bytes), bytes.NewReader(sig), nil)
	fingerprint, err = fingerprintOf(signer, err)
	if err != nil {
		return nil, "", err
	}
	return plaintext(block), fingerprint, nil
}

// plaintext is the signed file: the end of its last line is no part of what was signed, but of the file.
func plaintext(b *clearsign.Block) []byte { return append(b.Plaintext, '\n') }

func fingerprintOf(signer *openpgp.Entity, err error) (string, error) {
	if err != nil {
		return "", fmt.Errorf("OpenPGP signature: %w", err)
	}
	return strings.ToUpper(fmt.Sprintf("%x", signer.PrimaryKey.Fingerprint)), nil
}
