// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"log"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Log tells the bytes of one log file of a container, each once and in order.
type Log struct {
	UUID, File    string
	offset, epoch int64
	known         bool // the epoch: how often the file began anew
	gap           bool // what comes next in an answer may begin behind our place
	ended         bool
}

type logRequest struct {
	UUID   string `json:"uuid"`
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Epoch  *int64 `json:"epoch,omitempty"`
}

// take tells the bytes of a message that are new; false if others have to come before them.
func (l *Log) take(message *nats.Msg, asked bool, tell func([]byte)) bool {
	header := message.Header
	offset, wrong := strconv.ParseInt(cmp.Or(header.Get("Arvados-End"), header.Get("Arvados-Offset")), 10, 64)
	epoch, bad := strconv.ParseInt(header.Get("Arvados-Epoch"), 10, 64)
	if wrong != nil || bad != nil {
		log.Print("* left out: no bytes of the log on ", message.Subject)
		return true
	}
	behind := epoch > l.epoch || epoch == l.epoch && offset > l.offset
	if behind && !(asked && (l.gap || epoch > l.epoch)) {
		return false
	}
	if behind || !l.known {
		l.offset, l.epoch, l.known = offset, epoch, true
	}
	l.gap = false
	if end := offset + int64(len(message.Data)); epoch == l.epoch && end > l.offset {
		tell(message.Data[l.offset-offset:])
		l.offset = end
	}
	return true
}

// history tells the bytes that the stream has from our place on.
func (l *Log) history(c *Connection, tell func([]byte)) error {
	for more := true; more; {
		request := logRequest{UUID: l.UUID, File: l.File, Offset: l.offset}
		if l.known {
			epoch := l.epoch
			request.Epoch = &epoch
		}
		l.gap = false
		err := c.Ask("arvados.api.logs", request, func(message *nats.Msg) error {
			header := message.Header
			if header.Get("Arvados-Gap") != "" { // read it from Arvados' API with `Range`
				log.Printf("* gap: bytes %s of %s",
					header.Get("Arvados-Gap"), header.Get("Arvados-Log-Path"))
				l.gap = true
				return nil
			}
			if !l.take(message, true, tell) {
				return &NotAnswered{"a part of the answer is missing", true}
			}
			more = header.Get("Arvados-More") == "true"
			l.ended = header.Get("Arvados-Ended") == "true"
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// live tells the new bytes of a live message; false if history has to tell what is before them.
func (l *Log) live(message *nats.Msg, tell func([]byte)) bool {
	tokens, named := strings.Split(message.Subject, "."), message.Header.Get("Arvados-Container")
	if sequence(message) == 0 || named != "" && named != tokens[len(tokens)-2] {
		log.Print("* left out: no bytes of the log on ", message.Subject)
		return true
	}
	// After its end the container is over: history says when we have all.
	return message.Header.Get("Arvados-End") == "" && l.take(message, false, tell)
}

// Follow tells all bytes, until the container has ended.
func (l *Log) Follow(c *Connection, reconcile time.Duration, tell func([]byte)) error {
	for listens, due := false, true; ; {
		if due {
			var err error
			if !listens {
				err = l.listen(c)
				listens = err == nil
			}
			if err == nil {
				err = l.history(c, tell)
			}
			var notAnswered *NotAnswered
			if errors.As(err, &notAnswered) && notAnswered.Temporary {
				log.Print("* history: ", err)
			} else if err != nil {
				return err
			}
		}
		if l.ended {
			return nil
		}
		select {
		case message := <-c.Live:
			due = !l.live(message, tell)
		case <-c.Due:
			due = true
		case <-time.After(reconcile / 4):
			due = true
		}
	}
}

// listen hears the file as it grows; the answer says where. `end` tells when it is over.
func (l *Log) listen(c *Connection) error {
	subject := ""
	request := logRequest{UUID: l.UUID, File: l.File}
	err := c.Ask("arvados.api.logs", request, func(message *nats.Msg) error {
		subject = message.Header.Get("Arvados-Live")
		return nil
	})
	if err != nil || subject == "" {
		return err
	}
	if err := c.Listen(subject); err != nil {
		return err
	}
	return c.Listen(subject[:strings.LastIndex(subject, ".")] + ".end")
}
