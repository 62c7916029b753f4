// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"log"
	"maps"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Events tells what happens in a project, each event once, over every interruption; in order, but
// for what was lost on its way: history tells that later.
type Events struct {
	Project string
	cursor  string
	told    uint64          // history has told everything up to this sequence
	ahead   map[uint64]bool // sequences above it that were told, most of them live
}

// again is until history is asked again that was not answered.
const again = 2 * time.Second

type eventsRequest struct {
	Owners []string `json:"owners"`
	Limit  int      `json:"limit"`
	Cursor string   `json:"cursor,omitempty"`
	Begin  string   `json:"begin,omitempty"`
}

func sequence(message *nats.Msg) uint64 {
	number, _ := strconv.ParseUint(message.Header.Get("Nats-Sequence"), 10, 64)
	return number
}

// isNew is true for the message of an event that was not told before: a container in two requests
// comes twice, and so may all after a restart of a publisher. The services give each a sequence.
func (e *Events) isNew(message *nats.Msg) bool {
	number := sequence(message)
	if number == 0 || !json.Valid(message.Data) {
		log.Print("* left out: no event on ", message.Subject)
		return false
	}
	if number <= e.told || e.ahead[number] {
		return false
	}
	e.ahead[number] = true
	return true
}

// history tells the events that did not come live, up to now.
func (e *Events) history(c *Connection, tell func([]byte)) error {
	for more := true; more; {
		request := eventsRequest{Owners: []string{e.Project}, Limit: 1000, Cursor: e.cursor}
		if e.cursor == "" {
			request.Begin = "now" // or "oldest", for all that is kept
		}
		err := c.Ask("arvados.api.events", request, func(message *nats.Msg) error {
			header := message.Header
			switch {
			case header.Get("Arvados-Gap") != "":
				log.Print("* gap: ", header.Get("Arvados-Gap"))
				e.told, e.ahead = 0, map[uint64]bool{}
			case header.Get("Arvados-End") != "":
				e.cursor, e.told = header.Get("Arvados-End"), sequence(message)
				maps.DeleteFunc(e.ahead, func(number uint64, _ bool) bool { return number <= e.told })
				more = header.Get("Arvados-More") == "true"
			case e.isNew(message):
				e.cursor = header.Get("Arvados-Cursor")
				tell(message.Data)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Follow tells all events from now on.
func (e *Events) Follow(c *Connection, reconcile time.Duration, tell func([]byte)) error {
	e.ahead = map[uint64]bool{}
	if err := c.Listen("arvados.live." + e.Project + "." + e.Project + ".*.event.>"); err != nil {
		log.Print("* ", err) // not connected yet: it is sent when we are
	}
	for {
		// Live messages can be lost, so history is asked now and then, however many come.
		wait := time.Duration((0.8 + 0.4*rand.Float64()) * float64(reconcile))
		if !c.Denied() { // what we may not see now is told when we may again
			var notAnswered *NotAnswered
			if err := e.history(c, tell); errors.As(err, &notAnswered) {
				log.Print("* history: ", err)
				wait = time.Duration((0.5 + 0.5*rand.Float64()) * float64(again))
			} else if err != nil {
				return err
			} else {
				log.Print("* caught up")
			}
		}
		asked := time.After(wait)
		for due := false; !due; {
			select {
			case message := <-c.Live:
				if e.isNew(message) {
					tell(message.Data)
				}
			case <-c.Due:
				due = true
			case <-asked:
				due = true
			}
		}
	}
}
