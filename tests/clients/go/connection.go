// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Connection is two connections that come back for as long as the program runs: one listens, one
// asks. Who listens may publish nothing, and who asks hears nothing but answers, so nobody can have
// the services' answers heard as events.
type Connection struct {
	*nats.Conn
	asking *nats.Conn
	// Live messages in order.
	Live chan *nats.Msg
	// Due says that history has to be read: we were away.
	Due chan struct{}
}

// NotAnswered is why a request has no answer.
type NotAnswered struct {
	Text      string `json:"error"`
	Temporary bool   `json:"temporary"`
}

func (e *NotAnswered) Error() string { return e.Text }

// tokenNow is the token that holds now, v2/<uuid>/<secret>: a file is read again each time.
func tokenNow() string {
	if file := os.Getenv("ARVADOS_API_TOKEN_FILE"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Print("* error: ", err)
		}
		return strings.TrimSpace(string(text))
	}
	return os.Getenv("ARVADOS_API_TOKEN")
}

// uuidOf is the middle part of a token; empty if it has none.
func uuidOf(token string) string {
	if parts := strings.Split(token, "/"); len(parts) == 3 {
		return parts[1]
	}
	return ""
}

// Open connects; the library asks for the token again whenever it connects anew. Answers come to an
// inbox named by the user, whose name stays, or else by the token.
func Open(url string) (*Connection, error) {
	inbox := cmp.Or(os.Getenv("ARVADOS_USER_UUID"), uuidOf(tokenNow()))
	if inbox == "" {
		return nil, errors.New("not a token of the form v2/<uuid>/<secret>")
	}
	prefix := nats.CustomInboxPrefix("_INBOX_" + inbox)
	c := &Connection{Live: make(chan *nats.Msg, 65536), Due: make(chan struct{}, 1)}
	var err error
	c.asking, err = connect(url,
		nats.UserInfoHandler(func() (string, string) { return "api", tokenNow() }),
		prefix,
		nats.ConnectHandler(func(*nats.Conn) { c.due() }),
		nats.ReconnectHandler(func(*nats.Conn) { c.due() }), // a question may have been lost
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Print("* asking: ", err)
		}),
	)
	if err != nil {
		return nil, err
	}
	c.Conn, err = connect(url,
		nats.TokenHandler(tokenNow),
		prefix, // JetStream answers an administrator there
		nats.ConnectHandler(func(*nats.Conn) { log.Print("* connected"); c.due() }),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { log.Print("* disconnected") }),
		nats.ReconnectHandler(func(*nats.Conn) { log.Print("* connected"); c.due() }),
		nats.ReconnectErrHandler(said),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			said(nil, err)
			if errors.Is(err, nats.ErrSlowConsumer) {
				c.due()
			}
		}),
	)
	return c, err
}

func connect(url string, options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(url, append(options,
		nats.Timeout(5*time.Second), // the server takes 2 s when nobody can judge the token
		nats.MaxReconnects(-1),
		nats.ReconnectWait(time.Second),
		nats.PingInterval(5*time.Second), // a line that fell silent is given up after 15 s
		nats.ReconnectJitter(2*time.Second, 2*time.Second),
		nats.RetryOnFailedConnect(true),
		// A refusal may be an outage of the callout service: the server's words are the same.
		nats.IgnoreAuthErrorAbort(),
	)...)
}

func said(_ *nats.Conn, err error) {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		log.Print("* denied")
	case errors.Is(err, nats.ErrAuthorization):
		log.Print("* refused")
	default:
		log.Print("* error: ", err)
	}
}

func (c *Connection) due() {
	select {
	case c.Due <- struct{}{}:
	default:
	}
}

// Denied says whether the server does not let us subscribe. It answers in order, so what it
// thinks of our subscriptions is known when it has answered a ping.
func (c *Connection) Denied() bool {
	return c.Flush() != nil || errors.Is(c.LastError(), nats.ErrPermissionViolation)
}

// Listen puts what comes live into c.Live.
func (c *Connection) Listen(subject string) error {
	if _, err := c.ChanSubscribe(subject, c.Live); err != nil {
		return err
	}
	return c.Flush() // from here on nothing is missed
}

// Ask calls take for each message of an answer, up to and with the one that ends it.
func (c *Connection) Ask(subject string, request any, take func(*nats.Msg) error) error {
	payload, err := json.Marshal(request)
	if err != nil {
		return err
	}
	inbox := c.asking.NewInbox()
	answers, err := c.asking.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer answers.Unsubscribe()
	if err := c.asking.PublishRequest(subject, inbox, payload); err != nil {
		return err
	}
	for {
		message, err := answers.NextMsg(10 * time.Second)
		if err != nil {
			return &NotAnswered{fmt.Sprint("the answer does not come: ", err), true}
		}
		if message.Header.Get("Arvados-Error") != "" {
			found := &NotAnswered{}
			if err := json.Unmarshal(message.Data, found); err != nil {
				return err
			}
			return found
		}
		if err := take(message); err != nil {
			return err
		}
		if message.Header.Get("Arvados-End") != "" {
			return nil
		}
	}
}
