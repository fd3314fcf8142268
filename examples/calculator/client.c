/* Calls the calculator with values of each kind, over "tcp" or "udp", and checks each answer. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <rpc/rpc.h>
#include "calculator.h"

static void check(int right, const char *what)
{
    if (!right) {
        fprintf(stderr, "wrong: %s\n", what);
        exit(1);
    }
}

static CLIENT *connect_to(const char *transport, int port, unsigned long version)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval pause = {.tv_sec = 1};
    int sock = RPC_ANYSOCK;
    CLIENT *client;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (strcmp(transport, "tcp") == 0)
        client = clnttcp_create(&address, CALCULATOR, version, &sock, 0, 0);
    else
        client = clntudp_create(&address, CALCULATOR, version, pause, &sock);
    if (client == NULL) {
        clnt_pcreateerror("client");
        exit(1);
    }
    return client;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: client tcp|udp PORT\n");
        return 2;
    }
    CLIENT *client = connect_to(argv[1], atoi(argv[2]), CALCULATOR_2);
    client->cl_auth = authunix_create_default();

    task sum = {ADD, 40, 2};
    outcome *found = calculate_2(sum, client);
    check(found != NULL && found->result == OK && found->outcome_u.value == 42, "40 + 2");

    char **shown = show_2(*found, client);
    check(shown != NULL && strcmp(*shown, "OK: 42") == 0, "a string");

    task division = {DIVIDE, 1, 0};
    found = calculate_2(division, client);
    check(found != NULL && found->result == DIVISION_BY_ZERO, "1 / 0");
    check(strcmp(found->outcome_u.reason, "a division by zero") == 0, "a union's string");

    double many[MOST_NUMBERS];
    for (int i = 0; i < MOST_NUMBERS; i++)
        many[i] = i + 0.5;
    numbers list = {MOST_NUMBERS, many};
    summary *sums = summarize_2(list, client);
    check(sums != NULL && sums->count == MOST_NUMBERS && sums->total == 500000.0, "an array");
    check(sums->extremes[0] == 0.5 && sums->extremes[1] == 999.5, "an array of fixed size");
    check(sums->is_sorted, "a truth value");

    history *entries = remember_2(client);
    check(entries != NULL && *entries != NULL && (*entries)->next != NULL, "a list");
    check((*entries)->asked.left == 40 && (*entries)->answered.outcome_u.value == 42, "its first");
    check((*entries)->next->asked.what == DIVIDE, "its second");

    quad_t *large = power_2(-3, 39, client);
    check(large != NULL && *large == -4052555153018976267LL, "a hyper, of two arguments");

    check(power_2(2, 1000, client) == NULL, "a procedure that fails");
    struct rpc_err error;
    clnt_geterr(client, &error);
    check(error.re_status == RPC_SYSTEMERROR, "SYSTEM_ERR");

    struct timeval patience = {.tv_sec = 10};
    check(clnt_call(client, 99, (xdrproc_t)xdr_void, NULL, (xdrproc_t)xdr_void, NULL, patience)
              == RPC_PROCUNAVAIL, "PROC_UNAVAIL");
    check(clnt_call(client, CALCULATE, (xdrproc_t)xdr_void, NULL, (xdrproc_t)xdr_void, NULL,
                    patience) == RPC_CANTDECODEARGS, "GARBAGE_ARGS");
    auth_destroy(client->cl_auth);
    clnt_destroy(client);

    client = connect_to(argv[1], atoi(argv[2]), 7);
    check(clnt_call(client, NULLPROC, (xdrproc_t)xdr_void, NULL, (xdrproc_t)xdr_void, NULL,
                    patience) == RPC_PROGVERSMISMATCH, "PROG_MISMATCH");
    clnt_geterr(client, &error);
    check(error.re_vers.low == 1 && error.re_vers.high == 2, "its range");
    clnt_destroy(client);

    puts("all answers are right");
    return 0;
}
