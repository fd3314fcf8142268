/* The C server of rpc.x, as rpcgen makes it, on a port that the system chooses.
 *
 *   rpc_server tcp|udp
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <rpc/rpc.h>
#include "rpc.h"

void benchmark_1(struct svc_req *request, SVCXPRT *transport);

answered *ask_1_svc(asked *call, struct svc_req *request)
{
    static answered answer;
    answer.sum = call->first + call->second + call->third;
    answer.is_large = answer.sum > 1000;
    answer.name = call->name;
    return &answer;
}

int main(int argc, char **argv)
{
    int udp = argc > 1 && strcmp(argv[1], "udp") == 0;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int sock = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(sock, (void *)&address, sizeof address) || (!udp && listen(sock, 1024)))
        return 1;
    getsockname(sock, (void *)&address, &size);
    SVCXPRT *transport = udp ? svcudp_create(sock) : svctcp_create(sock, 0, 0);
    if (transport == NULL || !svc_register(transport, BENCHMARK, BENCHMARK_1, benchmark_1, 0))
        return 1;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    svc_run();
    return 1;
}
