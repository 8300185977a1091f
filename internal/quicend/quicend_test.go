package quicend

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quic-go/quic-go"
)

func TestEachEndHasItsMeaning(t *testing.T) {
	idle, reset, full, five := errors.New("idle"), errors.New("reset"), errors.New("full"), errors.New("five")
	m := Meanings{Idle: idle, Reset: reset, TurnedAway: full, Code: func(code quic.ApplicationErrorCode) error {
		if code == 5 {
			return five
		}
		return nil
	}}
	for name, tc := range map[string]struct{ err, want error }{
		"idle":                      {&quic.IdleTimeoutError{}, idle},
		"reset":                     {&quic.StatelessResetError{}, reset},
		"refused":                   {&quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}, full},
		"gave way":                  {&quic.TransportError{Remote: true, ErrorCode: quic.ApplicationErrorErrorCode}, full},
		"refused by this side":      {&quic.TransportError{ErrorCode: quic.ConnectionRefused}, nil},
		"another transport error":   {&quic.TransportError{Remote: true, ErrorCode: quic.InternalError}, nil},
		"a code":                    {&quic.ApplicationError{Remote: true, ErrorCode: 5}, five},
		"a code of this side":       {&quic.ApplicationError{ErrorCode: 5}, nil},
		"a code that means nothing": {&quic.ApplicationError{Remote: true, ErrorCode: 6}, nil},
		"none of QUIC's":            {errors.New("broken pipe"), nil},
	} {
		wrapped := fmt.Errorf("read: %w", tc.err)
		got := m.Of(wrapped)
		if !errors.Is(got, tc.err) || tc.want != nil && !errors.Is(got, tc.want) || tc.want == nil && got != wrapped {
			t.Errorf("%s means %v, want %v", name, got, tc.want)
		}
	}
	if m.Of(nil) != nil {
		t.Error("no error means one")
	}
}
