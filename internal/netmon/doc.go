// Package netmon tells when the host's network has changed: an address or a route came or went,
// a link went down or came up, or the machine slept.
//
// What happens, in order:
//
//  1. The system says that something has changed (source.go, and one file for each system). What it says
//     is not looked at: messages can be lost, and some changes come without one for each of their parts.
//  2. More is gathered for a moment, as one event on the host is many changes (monitor.go).
//  3. The state of the host's network is read, and compared with what it was (state.go). A message
//     after which everything that packets could go from and over is the same was about something else:
//     a lifetime that was renewed, an address on a bridge for containers.
//  4. All who have subscribed are told, with the cause (share.go).
//
// ADR 18 says why.
package netmon
