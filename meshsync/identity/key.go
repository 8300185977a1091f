package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	keyFileMode  = 0o600
	pemBlockType = "PRIVATE KEY" // PKCS#8, RFC 7468 section 10

	// maxKeyFile bounds what is read from a path that may be the wrong one.
	// An Ed25519 key in PKCS#8 PEM takes about 120 bytes.
	maxKeyFile = 16 << 10
)

// LoadOrCreateKey reads the Ed25519 private key at path (PKCS#8, PEM). If
// there is no such file it makes a key and writes it there with mode 0600,
// complete or not at all, even when several processes start at once: all of
// them return the same key. The directory must exist.
//
// A file that its group or others can read is refused, except on Windows,
// where the mode does not say who can.
func LoadOrCreateKey(path string) (ed25519.PrivateKey, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return loadKey(path)
}

func loadKey(path string) (ed25519.PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()

	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is not a regular file", path)
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("key file %s has mode %#o: others can read it, want %#o", path, perm, keyFileMode)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	key, err := parseKey(raw)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

func parseKey(raw []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("no PEM block in it")
	}
	if block.Type != pemBlockType {
		return nil, fmt.Errorf("PEM block is %q, want %q", clip(block.Type), pemBlockType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key is a %T, want Ed25519", parsed)
	}
	return key, nil
}

// createKey writes a new key to a file of its own and then links it to path,
// which fails with fs.ErrExist if another process was faster. Its errors name
// path: nobody knows the other file.
func createKey(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("key file %s: in directory %s: %w", path, filepath.Dir(path), err)
		}
	}()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return unnamed(err)
	}
	defer func() { err = errors.Join(err, unnamed(os.Remove(f.Name()))) }()

	err = unnamed(pem.Encode(f, &pem.Block{Type: pemBlockType, Bytes: der}))
	if err == nil {
		err = unnamed(f.Sync())
	}
	if err = errors.Join(err, unnamed(f.Close())); err != nil {
		return err
	}
	return unnamed(os.Link(f.Name(), path))
}

// unnamed returns what went wrong with a file without the file's name.
func unnamed(err error) error {
	if named, ok := errors.AsType[*fs.PathError](err); ok {
		return named.Err
	}
	if named, ok := errors.AsType[*os.LinkError](err); ok {
		return named.Err
	}
	return err
}
